/* Unix sockets with addresses, and descriptors under way: `unix-listeners` (by path and abstract; an accepted
 * connection each, with both ends here), `unix-passed` (descriptors that wait in a queue to be received). */
#include "guest.h"

#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

/* By path, and by an abstract name. */
static struct {
    int listener, client, server;
    struct sockaddr_un address;
    socklen_t length;
} ends[2];
static const char request[] = "request under way", answer[] = "answer under way";

static void refill(int i)
{
    expect_written(ends[i].client, request, sizeof request, "request");
    expect_written(ends[i].server, answer, sizeof answer, "answer");
}

static int connect_to(int i)
{
    int client = must(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    must(connect(client, (struct sockaddr *)&ends[i].address, ends[i].length), "connect");
    return client;
}

static void set_up(void)
{
    for (int i = 0; i < 2; i++) {
        char *path = ends[i].address.sun_path;
        int room_bytes = sizeof ends[i].address.sun_path;
        int name_bytes = i == 0 ? snprintf(path, room_bytes, "%s", scratch("listener")) + 1
                                : snprintf(path + 1, room_bytes - 1, "guest %s", scratch("")) + 1;
        ends[i].address.sun_family = AF_UNIX;
        ends[i].length = offsetof(struct sockaddr_un, sun_path) + name_bytes;
        ends[i].listener = must(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket");
        must(bind(ends[i].listener, (struct sockaddr *)&ends[i].address, ends[i].length), "bind");
        must(listen(ends[i].listener, 7), "listen");
        ends[i].client = connect_to(i);
        ends[i].server = must(accept4(ends[i].listener, NULL, NULL, SOCK_CLOEXEC), "accept4");
        refill(i);
    }
}

static void check(void)
{
    for (int i = 0; i < 2; i++) {
        struct sockaddr_un address;
        socklen_t length = sizeof address;
        int value = 0;
        must(getsockname(ends[i].listener, (struct sockaddr *)&address, &length), "getsockname");
        expect(ends[i].length, length, "length of the address");
        expect_bytes(&ends[i].address, &address, length, "address");
        length = sizeof value;
        must(getsockopt(ends[i].listener, SOL_SOCKET, SO_ACCEPTCONN, &value, &length), "SO_ACCEPTCONN");
        expect(1, value, "socket listens");
        expect_error(EAGAIN, accept(ends[i].listener, NULL, NULL), "accept without a client");
        expect_read(ends[i].server, request, sizeof request, "request");
        expect_read(ends[i].client, answer, sizeof answer, "answer");
        length = sizeof address;
        must(getpeername(ends[i].client, (struct sockaddr *)&address, &length), "getpeername");
        expect_bytes(&ends[i].address, &address, length, "address of the client's peer");
        int client = connect_to(i), server = must(accept(ends[i].listener, NULL, NULL), "accept");
        expect_written(client, "new", 3, "new connection");
        expect_read(server, "new", 3, "new connection");
        close(client);
        close(server);
        refill(i);
    }
}

const struct item item_unix_listeners = {.name = "unix-listeners", .set_up = set_up, .check = check};

static int carrier[2];

/* Sends the reading end of a pipe with content and a file with an offset, and keeps neither. */
static void send_descriptors(void)
{
    int pipe_ends[2], passed[2];
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof passed)];
    } control = {0};
    struct iovec vector = {"two", 3};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = sizeof control};
    must(pipe(pipe_ends), "pipe");
    expect_written(pipe_ends[1], "in the pipe", 11, "pipe");
    passed[0] = pipe_ends[0];
    passed[1] = must(open(scratch("passed"), O_RDWR | O_CREAT, 0600), "open");
    must(pwrite(passed[1], "0123456789", 10, 0), "pwrite");
    must(lseek(passed[1], 4, SEEK_SET), "lseek");
    control.header = (struct cmsghdr){CMSG_LEN(sizeof passed), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), passed, sizeof passed);
    expect(3, must(sendmsg(carrier[0], &message, 0), "sendmsg"), "bytes sent");
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    close(passed[1]);
}

static void set_up_passed(void)
{
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, carrier), "socketpair");
    expect_written(carrier[0], "before", 6, "carrier");
    send_descriptors();
    expect_written(carrier[0], "after", 5, "carrier");
}

static void check_passed(void)
{
    int passed[2];
    char bytes[64];
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof passed)];
    } control = {0};
    struct iovec vector = {bytes, sizeof bytes};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = sizeof control};
    expect_read(carrier[1], "before", 6, "bytes before the descriptors");
    /* A read ends behind the bytes that descriptors came with. */
    expect(3, must(recvmsg(carrier[1], &message, 0), "recvmsg"), "bytes with the descriptors");
    expect_bytes("two", bytes, 3, "bytes with the descriptors");
    expect(CMSG_LEN(sizeof passed), control.header.cmsg_len, "length of the passed descriptors");
    expect(SCM_RIGHTS, control.header.cmsg_type, "kind of what was passed");
    memcpy(passed, CMSG_DATA(&control.header), sizeof passed);
    expect_read(passed[0], "in the pipe", 11, "passed pipe");
    expect(0, read(passed[0], bytes, 1), "end of the passed pipe");
    expect_read(passed[1], "456789", 6, "passed file");
    close(passed[0]);
    close(passed[1]);
    expect_read(carrier[1], "after", 5, "bytes behind the descriptors");
    expect_written(carrier[0], "before", 6, "carrier");
    send_descriptors();
    expect_written(carrier[0], "after", 5, "carrier");
}

const struct item item_unix_passed = {
    .name = "unix-passed", .set_up = set_up_passed, .check = check_passed, .traits = REFUSABLE};
