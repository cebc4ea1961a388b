/* Workers of the stress program that send to each other: what goes in comes out, once, in order and whole. */
#include "stress.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#define PIECE_BYTES_MAX 5000
/* What is on its way over TCP has to fit into the window: what does not is refused by name. */
#define TCP_UNDERWAY_BYTES_MAX (32 * 1024)
#define TICK_NS 2000000
#define EVENTS_MAX 8

struct stream {
    int to, from;
    _Atomic uint64_t written, read;
};

static void connect_loopback(int *to, int *from)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    must(bind(listener, (void *)&address, sizeof address), "bind");
    must(listen(listener, 1), "listen");
    must(getsockname(listener, (void *)&address, &length), "getsockname");
    *to = must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    must(connect(*to, (void *)&address, sizeof address), "connect");
    /* Nor may anything wait for the acknowledgement of what went before. */
    must(setsockopt(*to, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)), "TCP_NODELAY");
    *from = must(accept4(listener, NULL, NULL, SOCK_CLOEXEC), "accept");
    close(listener);
}

void stream_prepare(struct worker *worker)
{
    struct stream *stream = calloc(1, sizeof *stream);
    int ends[2];
    switch (worker->kind) {
    case STREAM_PIPE:
        must(pipe2(ends, O_CLOEXEC), "pipe2");
        break;
    case STREAM_UNIX:
        must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), "socketpair");
        break;
    default:
        connect_loopback(&ends[1], &ends[0]);
    }
    stream->from = ends[0];
    stream->to = ends[1];
    worker->state = worker[1].state = stream;
}

static unsigned char stream_byte(uint64_t at)
{
    return at ^ (at >> 7) * 31 ^ (at >> 15) * 17;
}

void stream_write(struct worker *worker)
{
    struct stream *stream = worker->state;
    unsigned char bytes[PIECE_BYTES_MAX];
    size_t size_bytes = 1 + draw(worker, PIECE_BYTES_MAX), done = 0;
    uint64_t start = atomic_load(&stream->written);
    for (size_t i = 0; i < size_bytes; i++)
        bytes[i] = stream_byte(start + i);
    while (worker->kind == STREAM_TCP && start + size_bytes - atomic_load(&stream->read) > TCP_UNDERWAY_BYTES_MAX)
        usleep(100);
    while (done < size_bytes) {
        long written = RETRY(write(stream->to, bytes + done, size_bytes - done));
        if (written < 0) {
            complain("%s: write: %s", worker->name, strerror(errno));
            sleep_ms(10);
            return;
        }
        done += written;
        atomic_fetch_add(&stream->written, written);
    }
    if (draw(worker, 8) == 0)
        usleep(draw(worker, 1000));
}

void stream_read(struct worker *worker)
{
    struct stream *stream = worker->state;
    unsigned char bytes[PIECE_BYTES_MAX];
    long got = RETRY(read(stream->from, bytes, 1 + draw(worker, PIECE_BYTES_MAX)));
    uint64_t start = atomic_load(&stream->read);
    if (got <= 0) {
        complain("%s: read at %lu: %ld, %s", worker->name, start, got, strerror(errno));
        sleep_ms(10);
        return;
    }
    for (long i = 0; i < got; i++)
        if (bytes[i] != stream_byte(start + i)) {
            complain("%s: byte %lu differs", worker->name, start + i);
            break;
        }
    atomic_store(&stream->read, start + got);
    if (draw(worker, 8) == 0)
        usleep(draw(worker, 1000));
}

void stream_verify(struct worker *worker)
{
    struct stream *stream = worker->state;
    await_equal(&stream->read, atomic_load(&stream->written), worker->name);
}

struct events {
    int set, counter, packets[2], timer;
    _Atomic uint64_t counted_in, counted_out, packets_in, packets_out, ticks;
};

struct packet {
    uint64_t number, check;
};

static void watch(struct events *events, int descriptor, uint32_t flags)
{
    struct epoll_event event = {.events = EPOLLIN | flags, .data.fd = descriptor};
    must(epoll_ctl(events->set, EPOLL_CTL_ADD, descriptor, &event), "epoll_ctl");
}

void events_prepare(struct worker *worker)
{
    struct events *events = calloc(1, sizeof *events);
    struct itimerspec period = {.it_interval.tv_nsec = TICK_NS, .it_value.tv_nsec = TICK_NS};
    events->set = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    events->counter = must(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "eventfd");
    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, events->packets), "socketpair");
    events->timer = must(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), "timerfd_create");
    must(timerfd_settime(events->timer, 0, &period, NULL), "timerfd_settime");
    watch(events, events->counter, EPOLLET);
    watch(events, events->packets[0], 0);
    watch(events, events->timer, EPOLLET);
    worker->state = worker[1].state = events;
}

void events_send(struct worker *worker)
{
    struct events *events = worker->state;
    if (draw(worker, 2)) {
        uint64_t value = 1 + draw(worker, 1000);
        if (RETRY(write(events->counter, &value, sizeof value)) != sizeof value)
            complain("%s: write to the eventfd: %s", worker->name, strerror(errno));
        atomic_fetch_add(&events->counted_in, value);
    } else {
        uint64_t number = atomic_load(&events->packets_in);
        struct packet packet = {number, mix(number)};
        if (RETRY(send(events->packets[1], &packet, sizeof packet, 0)) != sizeof packet)
            complain("%s: send: %s", worker->name, strerror(errno));
        atomic_fetch_add(&events->packets_in, 1);
    }
    if (draw(worker, 16) == 0)
        usleep(draw(worker, 500));
}

static void receive_packet(struct worker *worker, struct events *events)
{
    struct packet packet;
    uint64_t number = atomic_load(&events->packets_out);
    if (RETRY(recv(events->packets[0], &packet, sizeof packet, 0)) != sizeof packet)
        complain("%s: recv: %s", worker->name, strerror(errno));
    else if (packet.number != number || packet.check != mix(number))
        complain("%s: expected packet %lu, got %lu", worker->name, number, packet.number);
    atomic_fetch_add(&events->packets_out, 1);
}

void events_receive(struct worker *worker)
{
    struct events *events = worker->state;
    struct epoll_event ready[EVENTS_MAX];
    int timeout_ms = draw(worker, 2) ? -1 : 1 + (int)draw(worker, 20);
    int count = RETRY(epoll_wait(events->set, ready, 1 + draw(worker, EVENTS_MAX), timeout_ms));
    for (int i = 0; i < count; i++) {
        uint64_t value = 0;
        int descriptor = ready[i].data.fd;
        if (descriptor == events->packets[0]) {
            receive_packet(worker, events);
            continue;
        }
        long got = RETRY(read(descriptor, &value, sizeof value));
        if (got < 0 && errno != EAGAIN)
            complain("%s: read of descriptor %d: %s", worker->name, descriptor, strerror(errno));
        if (got == sizeof value)
            atomic_fetch_add(descriptor == events->counter ? &events->counted_out : &events->ticks, value);
    }
    if (count < 0)
        complain("%s: epoll_wait: %s", worker->name, strerror(errno));
}

void events_verify(struct worker *worker)
{
    struct events *events = worker->state;
    uint64_t ticks = atomic_load(&events->ticks);
    await_equal(&events->counted_out, atomic_load(&events->counted_in), "sum of the eventfd");
    await_equal(&events->packets_out, atomic_load(&events->packets_in), "packets");
    for (int waited_ms = 0; atomic_load(&events->ticks) == ticks; waited_ms++) {
        if (waited_ms > PATIENCE_MS)
            bad("%s: the timer does not tick", worker->name);
        sleep_ms(1);
    }
}
