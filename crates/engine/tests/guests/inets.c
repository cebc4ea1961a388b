/* Internet sockets within one process: `tcp-listeners` (v4 and v6, options, backlog), `tcp-connected` (a connection
 * of which both ends are here, with unread bytes in both directions), `tcp-half-closed` (one of which one end said
 * that it has nothing more to send). */
#include "guest.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static union address loopback(int family, socklen_t *length)
{
    union address address = {0};
    address.any.sa_family = family;
    *length = family == AF_INET ? sizeof address.v4 : sizeof address.v6;
    if (family == AF_INET)
        address.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else
        address.v6.sin6_addr = in6addr_loopback;
    return address;
}

static int bound(int family, int kind)
{
    socklen_t length;
    union address address = loopback(family, &length);
    int on = 1, descriptor = socket(family, kind, 0);
    if (descriptor < 0)
        return -1;
    must(setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "SO_REUSEADDR");
    if (family == AF_INET6)
        must(setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on), "IPV6_V6ONLY");
    if (bind(descriptor, &address.any, length) < 0) {
        close(descriptor);
        return -1;
    }
    return descriptor;
}

static int connected_to(int listener, int kind)
{
    union address address;
    socklen_t length = sizeof address;
    must(getsockname(listener, &address.any, &length), "getsockname");
    int client = must(socket(address.any.sa_family, kind, 0), "socket");
    must(connect(client, &address.any, length), "connect");
    return client;
}

static int option(int descriptor, int level, int name)
{
    int value = -1;
    socklen_t length = sizeof value;
    must(getsockopt(descriptor, level, name, &value, &length), "getsockopt");
    return value;
}

static void set_option(int descriptor, int level, int name, int value)
{
    must(setsockopt(descriptor, level, name, &value, sizeof value), "setsockopt");
}

static int listeners[2];
static union address names[2];

static void set_up_listeners(void)
{
    for (int i = 0; i < 2; i++) {
        socklen_t length = sizeof names[i];
        listeners[i] = bound(i ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (listeners[i] < 0) /* Not every sandbox has IPv6. */
            continue;
        set_option(listeners[i], SOL_SOCKET, SO_KEEPALIVE, 1);
        set_option(listeners[i], IPPROTO_TCP, TCP_NODELAY, 1);
        set_option(listeners[i], SOL_SOCKET, SO_RCVBUF, 70000);
        must(listen(listeners[i], 33), "listen");
        must(getsockname(listeners[i], &names[i].any, &length), "getsockname");
    }
}

static void check_listeners(void)
{
    for (int i = 0; i < 2; i++) {
        struct tcp_info information;
        union address name = {0};
        socklen_t length = sizeof name;
        if (listeners[i] < 0)
            continue;
        must(getsockname(listeners[i], &name.any, &length), "getsockname");
        expect_bytes(&names[i], &name, length, "address of the listener");
        expect(1, option(listeners[i], SOL_SOCKET, SO_ACCEPTCONN), "socket listens");
        expect(1, option(listeners[i], SOL_SOCKET, SO_REUSEADDR), "SO_REUSEADDR");
        expect(1, option(listeners[i], SOL_SOCKET, SO_KEEPALIVE), "SO_KEEPALIVE");
        expect(1, option(listeners[i], IPPROTO_TCP, TCP_NODELAY), "TCP_NODELAY");
        if (i)
            expect(1, option(listeners[i], IPPROTO_IPV6, IPV6_V6ONLY), "IPV6_V6ONLY");
        expect(140000, option(listeners[i], SOL_SOCKET, SO_RCVBUF), "SO_RCVBUF");
        length = sizeof information;
        must(getsockopt(listeners[i], IPPROTO_TCP, TCP_INFO, &information, &length), "TCP_INFO");
        expect(33, information.tcpi_sacked, "backlog");
        expect_error(EAGAIN, accept(listeners[i], NULL, NULL), "accept without a client");
        int client = connected_to(listeners[i], SOCK_STREAM);
        int server = must(accept(listeners[i], NULL, NULL), "accept");
        expect_written(client, "hello", 5, "connection");
        expect_read(server, "hello", 5, "connection");
        /* The client closes first, so that no port of the listener is left waiting. */
        close(client);
        close(server);
        expect(FD_CLOEXEC, fcntl(listeners[i], F_GETFD), "close-on-exec");
    }
}

const struct item item_tcp_listeners = {
    .name = "tcp-listeners", .set_up = set_up_listeners, .check = check_listeners};

static int client, server;
static char content[30000];

static void connect_both(void)
{
    int listener = bound(AF_INET, SOCK_STREAM);
    must(listen(listener, 5), "listen");
    client = connected_to(listener, SOCK_STREAM);
    server = must(accept(listener, NULL, NULL), "accept");
    close(listener);
}

static void set_up_connected(void)
{
    fill(content, sizeof content, 800);
    connect_both();
    set_option(client, IPPROTO_TCP, TCP_NODELAY, 1);
    expect_written(client, content, sizeof content, "connection");
    expect_written(server, "answer", 6, "connection");
}

static void check_connected(void)
{
    static char got[sizeof content];
    union address name, peer;
    socklen_t length = sizeof name;
    expect(sizeof content, recv(server, got, sizeof got, MSG_WAITALL), "bytes at the server");
    expect_filled(got, sizeof got, 800, "what the client sent");
    expect_read(client, "answer", 6, "what the server sent");
    must(getsockname(client, &name.any, &length), "getsockname");
    must(getpeername(server, &peer.any, &length), "getpeername");
    expect(name.v4.sin_port, peer.v4.sin_port, "port of the client");
    expect(1, option(client, IPPROTO_TCP, TCP_NODELAY), "TCP_NODELAY");
    expect_written(client, content, sizeof content, "connection");
    expect_written(server, "answer", 6, "connection");
}

const struct item item_tcp_connected = {
    .name = "tcp-connected", .set_up = set_up_connected, .check = check_connected};

static void set_up_half(void)
{
    connect_both();
    must(shutdown(client, SHUT_WR), "shutdown");
    signal(SIGPIPE, SIG_IGN);
    expect_written(server, "reply", 5, "connection");
}

static void check_half(void)
{
    char byte;
    expect(0, read(server, &byte, 1), "end of the half that is closed");
    expect_error(EPIPE, write(client, "x", 1), "write to the half that is closed");
    expect_read(client, "reply", 5, "half that is open");
    expect_written(server, "reply", 5, "connection");
}

const struct item item_tcp_half_closed = {.name = "tcp-half-closed", .set_up = set_up_half, .check = check_half};
