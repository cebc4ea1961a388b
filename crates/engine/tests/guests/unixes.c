/* Unix sockets with both ends in one process: `unix-pairs` (stream, datagram and sequence with queued data,
 * boundaries, options), `unix-half-closed` (and one whose peer is gone, with its last words unread),
 * `unix-datagrams` (bound to names, with a queue from several senders). */
#include "guest.h"

#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { BYTES = 50000 };

static int stream[2], datagram[2], sequence[2];
static char content[BYTES], got[BYTES + 1];

static void refill(void)
{
    expect_written(stream[1], content, BYTES, "stream");
    expect_written(datagram[1], "first", 5, "datagram");
    expect_written(datagram[1], "", 0, "empty datagram");
    expect_written(datagram[1], "third one", 9, "datagram");
    expect_written(sequence[1], "alpha", 5, "sequence");
    expect_written(sequence[1], "beta!", 5, "sequence");
}

static void set_up_pairs(void)
{
    int size_bytes = 100000, on = 1;
    fill(content, BYTES, 700);
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream), "socketpair");
    must(setsockopt(stream[1], SOL_SOCKET, SO_SNDBUF, &size_bytes, sizeof size_bytes), "SO_SNDBUF");
    must(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, datagram), "socketpair");
    must(setsockopt(datagram[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on), "SO_PASSCRED");
    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, sequence), "socketpair");
    refill();
}

static int option(int descriptor, int name)
{
    int value = -1;
    socklen_t length = sizeof value;
    must(getsockopt(descriptor, SOL_SOCKET, name, &value, &length), "getsockopt");
    return value;
}

static void check_pairs(void)
{
    struct ucred peer;
    socklen_t length = sizeof peer;
    int waiting;
    must(ioctl(stream[0], FIONREAD, &waiting), "FIONREAD");
    expect(BYTES, waiting, "bytes in the stream");
    expect(BYTES, recv(stream[0], got, BYTES, MSG_WAITALL), "bytes of the stream");
    expect_filled(got, BYTES, 700, "stream");
    expect(5, recv(datagram[0], got, sizeof got, 0), "length of the first datagram");
    expect_bytes("first", got, 5, "first datagram");
    expect(0, recv(datagram[0], got, sizeof got, 0), "length of the empty datagram");
    expect(9, recv(datagram[0], got, sizeof got, 0), "length of the third datagram");
    expect_error(EAGAIN, recv(datagram[0], got, 1, 0), "read behind the last datagram");
    expect(5, recv(sequence[0], got, sizeof got, 0), "length of the first message");
    expect_bytes("alpha", got, 5, "first message");
    expect(5, recv(sequence[0], got, sizeof got, 0), "length of the second message");
    expect_bytes("beta!", got, 5, "second message");
    expect(200000, option(stream[1], SO_SNDBUF), "send buffer");
    expect(1, option(datagram[0], SO_PASSCRED), "credentials passed");
    expect(SOCK_SEQPACKET, option(sequence[1], SO_TYPE), "kind of the sequence");
    expect(FD_CLOEXEC, fcntl(stream[0], F_GETFD), "close-on-exec");
    expect(O_NONBLOCK, fcntl(sequence[0], F_GETFL) & O_NONBLOCK, "flags of the sequence");
    must(getsockopt(stream[0], SOL_SOCKET, SO_PEERCRED, &peer, &length), "SO_PEERCRED");
    /* The process of the peer is whoever made the pair, which an engine may have done. */
    expect(getuid(), peer.uid, "user of the peer");
    refill();
}

const struct item item_unix_pairs = {.name = "unix-pairs", .set_up = set_up_pairs, .check = check_pairs};

enum { LONELY_NUMBER = 80 };
static int half[2];

/* A stream whose peer is gone cannot be filled again, so it is made anew at the same number. */
static void make_lonely(void)
{
    int ends[2];
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), "socketpair");
    expect_written(ends[1], "bye", 3, "stream");
    close(ends[1]);
    move_descriptor(ends[0], LONELY_NUMBER);
}

static void set_up_half(void)
{
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, half), "socketpair");
    must(shutdown(half[1], SHUT_WR), "shutdown");
    signal(SIGPIPE, SIG_IGN);
    expect_written(half[0], "still open this way", 19, "half-closed stream");
    make_lonely();
}

static void check_half(void)
{
    expect(0, read(half[0], got, 1), "end of the half that is closed");
    expect_error(EPIPE, write(half[1], "x", 1), "write to the half that is closed");
    expect_read(half[1], "still open this way", 19, "half that is open");
    expect_written(half[0], "still open this way", 19, "half-closed stream");
    expect_read(LONELY_NUMBER, "bye", 3, "stream whose peer is gone");
    expect(0, read(LONELY_NUMBER, got, 1), "end of the stream whose peer is gone");
    expect_error(EPIPE, write(LONELY_NUMBER, "x", 1), "write to a stream whose peer is gone");
    make_lonely();
}

const struct item item_unix_half_closed = {.name = "unix-half-closed", .set_up = set_up_half, .check = check_half};

static struct sockaddr_un name_of(const char *path, socklen_t *length)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    *length = offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1;
    return address;
}

static int receiver, sender;

static void send_datagrams(void)
{
    expect_written(sender, "from the connected one", 22, "datagram");
    int other = must(socket(AF_UNIX, SOCK_DGRAM, 0), "socket");
    socklen_t length;
    struct sockaddr_un address = name_of(scratch("receiver"), &length);
    expect(12, sendto(other, "from another", 12, 0, (struct sockaddr *)&address, length), "bytes sent");
    close(other);
}

static void set_up_datagrams(void)
{
    socklen_t length;
    struct sockaddr_un address = name_of(scratch("receiver"), &length);
    receiver = must(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0), "socket");
    must(bind(receiver, (struct sockaddr *)&address, length), "bind");
    sender = must(socket(AF_UNIX, SOCK_DGRAM, 0), "socket");
    must(connect(sender, (struct sockaddr *)&address, length), "connect");
    address = name_of(scratch("sender"), &length);
    must(bind(sender, (struct sockaddr *)&address, length), "bind");
    send_datagrams();
}

static void check_datagrams(void)
{
    struct sockaddr_un from;
    socklen_t length = sizeof from;
    expect(22, must(recvfrom(receiver, got, sizeof got, 0, (struct sockaddr *)&from, &length), "recvfrom"), "bytes");
    expect_bytes("from the connected one", got, 22, "first datagram");
    expect_text(scratch("sender"), from.sun_path, "sender of the first datagram");
    length = sizeof from;
    expect(12, must(recvfrom(receiver, got, sizeof got, 0, (struct sockaddr *)&from, &length), "recvfrom"), "bytes");
    expect_bytes("from another", got, 12, "second datagram");
    expect_error(EAGAIN, recv(receiver, got, 1, 0), "read behind the last datagram");
    send_datagrams();
}

const struct item item_unix_datagrams = {
    .name = "unix-datagrams", .set_up = set_up_datagrams, .check = check_datagrams};
