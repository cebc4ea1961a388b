/* Sockets of messages: `udp` (bound ones, a connected pair, queued datagrams with their senders), `netlink` (bound,
 * with a group), and `tcp-outbound` (a connection to GUEST_PEER=address:port, to somewhere outside). The first two
 * come back as they were; a connection to outside comes back closed: a read gives ECONNRESET. */
#include "guest.h"

#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

static int bound[2], pair[2];
static struct sockaddr_in names[2], pair_names[2];

static int make_bound(struct sockaddr_in *name)
{
    socklen_t length = sizeof *name;
    int descriptor = must(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), "socket");
    *name = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    must(bind(descriptor, (struct sockaddr *)name, length), "bind");
    must(getsockname(descriptor, (struct sockaddr *)name, &length), "getsockname");
    return descriptor;
}

static void queue(void)
{
    const struct sockaddr *to = (const struct sockaddr *)&names[0];
    expect(4, must(sendto(bound[1], "one.", 4, 0, to, sizeof names[0]), "sendto"), "bytes sent");
    expect(0, must(sendto(bound[1], "", 0, 0, to, sizeof names[0]), "sendto"), "bytes sent");
    expect(5, must(sendto(pair[0], "three", 5, 0, (const struct sockaddr *)&pair_names[1], sizeof names[0]), "sendto"),
           "bytes sent");
}

static void set_up_udp(void)
{
    int size_bytes = 50000, on = 1;
    for (int i = 0; i < 2; i++) {
        bound[i] = make_bound(&names[i]);
        pair[i] = make_bound(&pair_names[i]);
    }
    for (int i = 0; i < 2; i++)
        must(connect(pair[i], (struct sockaddr *)&pair_names[1 - i], sizeof names[0]), "connect");
    must(setsockopt(bound[0], SOL_SOCKET, SO_RCVBUF, &size_bytes, sizeof size_bytes), "SO_RCVBUF");
    must(setsockopt(bound[0], SOL_SOCKET, SO_BROADCAST, &on, sizeof on), "SO_BROADCAST");
    queue();
}

static void expect_datagram(const char *expected, const struct sockaddr_in *sender)
{
    char got[100];
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    long bytes = must(recvfrom(bound[0], got, sizeof got, 0, (struct sockaddr *)&from, &length), "recvfrom");
    expect(strlen(expected), bytes, "length of a datagram");
    expect_bytes(expected, got, bytes, "datagram");
    expect(ntohs(sender->sin_port), ntohs(from.sin_port), "port of a datagram's sender");
}

static void check_udp(void)
{
    char got[100];
    struct sockaddr_in name;
    socklen_t length = sizeof name;
    int value = 0;
    expect_datagram("one.", &names[1]);
    expect_datagram("", &names[1]);
    expect_error(EAGAIN, recv(bound[0], got, 1, 0), "read behind the last datagram");
    expect_read(pair[1], "three", 5, "datagram of the connected pair");
    for (int i = 0; i < 2; i++) {
        must(getsockname(bound[i], (struct sockaddr *)&name, &length), "getsockname");
        expect(ntohs(names[i].sin_port), ntohs(name.sin_port), "port of a socket");
        must(getpeername(pair[i], (struct sockaddr *)&name, &length), "getpeername");
        expect(ntohs(pair_names[1 - i].sin_port), ntohs(name.sin_port), "port of a connected socket's peer");
    }
    /* A connected socket hears its peer only. */
    must(sendto(bound[1], "stranger", 8, 0, (struct sockaddr *)&pair_names[0], sizeof names[0]), "sendto");
    sleep_ms(5);
    expect_error(EAGAIN, recv(pair[0], got, sizeof got, 0), "read of a stranger's datagram");
    length = sizeof value;
    must(getsockopt(bound[0], SOL_SOCKET, SO_RCVBUF, &value, &length), "SO_RCVBUF");
    expect(100000, value, "receive buffer");
    must(getsockopt(bound[0], SOL_SOCKET, SO_BROADCAST, &value, &length), "SO_BROADCAST");
    expect(1, value, "broadcasts allowed");
    queue();
}

const struct item item_udp = {.name = "udp", .set_up = set_up_udp, .check = check_udp};

static int netlink;
static struct sockaddr_nl netlink_name;

static void set_up_netlink(void)
{
    socklen_t length = sizeof netlink_name;
    netlink_name = (struct sockaddr_nl){.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
    netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (netlink < 0 || bind(netlink, (struct sockaddr *)&netlink_name, length) < 0)
        skip("netlink: %s", strerror(errno));
    must(getsockname(netlink, (struct sockaddr *)&netlink_name, &length), "getsockname");
}

static void check_netlink(void)
{
    struct sockaddr_nl name;
    socklen_t length = sizeof name;
    char got[8192];
    struct {
        struct nlmsghdr header;
        struct ifinfomsg body;
    } request = {.header = {sizeof request, RTM_GETLINK, NLM_F_REQUEST, 42, 0}, .body = {.ifi_index = 1}};
    must(getsockname(netlink, (struct sockaddr *)&name, &length), "getsockname");
    expect(netlink_name.nl_pid, name.nl_pid, "number of the netlink socket");
    expect(RTMGRP_LINK, name.nl_groups, "groups of the netlink socket");
    expect_written(netlink, &request, sizeof request, "request");
    must(read(netlink, got, sizeof got), "answer");
    const struct nlmsghdr *answer = (const void *)got;
    expect(42, answer->nlmsg_seq, "sequence number of the answer");
    expect(RTM_NEWLINK, answer->nlmsg_type, "kind of the answer");
}

const struct item item_netlink = {.name = "netlink", .set_up = set_up_netlink, .check = check_netlink};

static int outbound;

static void set_up_outbound(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[64];
    int port;
    const char *peer = getenv("GUEST_PEER");
    if (!peer || sscanf(peer, "%63[^:]:%d", host, &port) != 2 || !inet_aton(host, &address.sin_addr))
        skip("GUEST_PEER names no address:port to connect to");
    address.sin_port = htons(port);
    outbound = must(socket(AF_INET, SOCK_STREAM, 0), "socket");
    must(connect(outbound, (struct sockaddr *)&address, sizeof address), "connect to GUEST_PEER");
}

/* Before a restore the connection is open and quiet; after one it is reset, which is told once, and then closed. It
 * must never give data, or an end of file that looks like the peer's. */
static void check_outbound(void)
{
    static bool reset;
    char byte;
    ssize_t bytes = recv(outbound, &byte, 1, MSG_DONTWAIT);
    if (!told_restored) {
        expect_error(EAGAIN, bytes, "read of the open outbound connection");
        return;
    }
    if (!reset)
        expect_error(ECONNRESET, bytes, "first read of the outbound connection after a restore");
    reset = true;
    expect_error(EPIPE, send(outbound, "x", 1, MSG_NOSIGNAL), "write to the reset connection");
}

const struct item item_tcp_outbound = {.name = "tcp-outbound", .set_up = set_up_outbound, .check = check_outbound,
                                       .traits = OUTSIDER};
