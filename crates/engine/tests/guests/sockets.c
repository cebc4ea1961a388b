/* Threads in blocking calls on sockets: recv, recvmsg, recv of all bytes, accept;
 * `blocked-sockets` without a limit, `blocked-socket-limits` with one (SO_RCVTIMEO), where the kernel
 * answers an interruption with EINTR and never restarts by itself: a restore must not let that show. */
#include "guest.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/un.h>

static long receive(struct sitter *sitter)
{
    char bytes[16];
    return recv(sitter->descriptor, bytes, sizeof bytes, 0);
}

static long receive_message(struct sitter *sitter)
{
    char bytes[16];
    struct iovec vector = {bytes, sizeof bytes};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    return recvmsg(sitter->descriptor, &message, 0);
}

/* Nothing is there yet: an interruption in the middle would give a part, and no restart could take that back. */
static long receive_all(struct sitter *sitter)
{
    char bytes[8];
    return recv(sitter->descriptor, bytes, sizeof bytes, MSG_WAITALL);
}

static void send_bytes(struct sitter *sitter)
{
    expect(sitter->result, must(send(sitter->other, "abcdefgh", sitter->result, 0), sitter->what), "%s: bytes sent",
           sitter->what);
}

static long accept_one(struct sitter *sitter)
{
    int descriptor = accept4(sitter->descriptor, NULL, NULL, SOCK_CLOEXEC);
    return descriptor < 0 ? -1 : close(descriptor);
}

static void connect_one(struct sitter *sitter)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    must(getsockname(sitter->descriptor, (struct sockaddr *)&address, &length), "getsockname");
    int client = must(socket(address.ss_family, SOCK_STREAM, 0), "socket");
    must(connect(client, (struct sockaddr *)&address, length), "connect");
    close(client);
}

enum { STREAM, SEQUENCE, WHOLE, UNIX_LISTENER, TCP_LISTENER, DATAGRAM, KINDS };
static struct sitter sitters[KINDS], limited[KINDS];
static const struct sitter kinds[KINDS] = {
    [STREAM] = {.what = "recv of a stream", .sit = receive, .wake = send_bytes, .result = 5},
    [SEQUENCE] = {.what = "recvmsg of a sequence", .sit = receive_message, .wake = send_bytes, .result = 4},
    [WHOLE] = {.what = "recv of all bytes", .sit = receive_all, .wake = send_bytes, .result = 8},
    [UNIX_LISTENER] = {.what = "accept of a Unix socket", .sit = accept_one, .wake = connect_one},
    [TCP_LISTENER] = {.what = "accept of a TCP socket", .sit = accept_one, .wake = connect_one},
    [DATAGRAM] = {.what = "recv of a datagram", .sit = receive, .wake = send_bytes, .result = 3},
};

static void make_pair(struct sitter *sitter, int kind)
{
    int ends[2];
    must(socketpair(AF_UNIX, kind, 0, ends), "socketpair");
    sitter->descriptor = ends[0];
    sitter->other = ends[1];
}

static void make_listener(struct sitter *sitter, int family)
{
    struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un unnamed = {.sun_family = AF_UNIX};
    sitter->descriptor = must(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    if (family == AF_INET)
        must(bind(sitter->descriptor, (struct sockaddr *)&loopback, sizeof loopback), "bind");
    else /* An address of the family alone makes the kernel choose an abstract name. */
        must(bind(sitter->descriptor, (struct sockaddr *)&unnamed, sizeof(sa_family_t)), "bind");
    must(listen(sitter->descriptor, 5), "listen");
}

static void make_datagrams(struct sitter *sitter)
{
    struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof loopback;
    sitter->descriptor = must(socket(AF_INET, SOCK_DGRAM, 0), "socket");
    must(bind(sitter->descriptor, (struct sockaddr *)&loopback, length), "bind");
    must(getsockname(sitter->descriptor, (struct sockaddr *)&loopback, &length), "getsockname");
    sitter->other = must(socket(AF_INET, SOCK_DGRAM, 0), "socket");
    must(connect(sitter->other, (struct sockaddr *)&loopback, length), "connect");
}

static void prepare(struct sitter *all)
{
    memcpy(all, kinds, sizeof kinds);
    make_pair(&all[STREAM], SOCK_STREAM);
    make_pair(&all[SEQUENCE], SOCK_SEQPACKET);
    make_pair(&all[WHOLE], SOCK_STREAM);
    make_listener(&all[UNIX_LISTENER], AF_UNIX);
    make_listener(&all[TCP_LISTENER], AF_INET);
    make_datagrams(&all[DATAGRAM]);
}

static void set_up(void)
{
    prepare(sitters);
    sitters_start(sitters, KINDS);
}

static void check(void)
{
    sitters_check(sitters, KINDS);
}

const struct item item_blocked_sockets = {.name = "blocked-sockets", .set_up = set_up, .check = check};

static void set_up_limits(void)
{
    struct timeval limit = {HOUR_S, 0};
    prepare(limited);
    for (int i = 0; i < KINDS; i++)
        must(setsockopt(limited[i].descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), "SO_RCVTIMEO");
    sitters_start(limited, KINDS);
}

static void check_limits(void)
{
    struct timeval limit;
    socklen_t length = sizeof limit;
    sitters_check(limited, KINDS);
    for (int i = 0; i < KINDS; i++) {
        must(getsockopt(limited[i].descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, &length), "SO_RCVTIMEO");
        expect(HOUR_S, limit.tv_sec, "%s: limit in seconds", limited[i].what);
    }
}

const struct item item_blocked_socket_limits = {
    .name = "blocked-socket-limits", .set_up = set_up_limits, .check = check_limits};
