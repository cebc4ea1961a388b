/* Servers of several processes: `tree-prefork` (workers that share a listening socket and a page of memory),
 * `tree-loopback` (a TCP connection between parent and child with unread bytes in both directions), `tree-pair` (a
 * Unix socket pair between them, the same). */
#include "guest.h"

#include <arpa/inet.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum { WORKERS = 4, REQUESTS = 20 };

static int listener;
static _Atomic int *served;
static struct child workers[WORKERS];
static struct sitter acceptor;

static struct sockaddr_in address_of(int descriptor)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    must(getsockname(descriptor, (struct sockaddr *)&address, &length), "getsockname");
    return address;
}

static int listen_on_loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int descriptor = must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    must(bind(descriptor, (struct sockaddr *)&address, sizeof address), "bind");
    must(listen(descriptor, 16), "listen");
    return descriptor;
}

static int connect_to(int listening)
{
    struct sockaddr_in address = address_of(listening);
    int client = must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    must(connect(client, (struct sockaddr *)&address, sizeof address), "connect");
    return client;
}

static long accept_and_answer(struct sitter *sitter)
{
    int client = accept(sitter->descriptor, NULL, NULL);
    if (client < 0)
        return -1;
    pid_t self = getpid();
    atomic_fetch_add(served, 1);
    long result = write(client, &self, sizeof self);
    close(client);
    return result;
}

static void set_up_worker(void)
{
    acceptor = (struct sitter){.what = "worker", .sit = accept_and_answer, .descriptor = listener,
                               .result = sizeof(pid_t)};
    sitters_start(&acceptor, 1);
}

/* What went wrong in the thread shows by itself. */
static const struct item worker_item = {.set_up = set_up_worker};

static void set_up_prefork(void)
{
    served = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    listener = listen_on_loopback();
    for (int i = 0; i < WORKERS; i++)
        child_start(&workers[i], &worker_item);
}

static void check_prefork(void)
{
    int before = *served;
    for (int i = 0; i < REQUESTS; i++) {
        pid_t who = 0;
        bool known = false;
        int client = connect_to(listener);
        expect(sizeof who, must(recv(client, &who, sizeof who, MSG_WAITALL), "answer of a worker"), "bytes");
        close(client);
        for (int worker = 0; worker < WORKERS; worker++)
            known = known || workers[worker].pid == who;
        expect(1, known, "answer by one of the workers, not by %d", who);
    }
    expect(before + REQUESTS, *served, "requests counted in shared memory");
    for (int i = 0; i < WORKERS; i++)
        child_check(&workers[i], "worker");
}

const struct item item_tree_prefork = {
    .name = "tree-prefork", .set_up = set_up_prefork, .check = check_prefork, .traits = TREE};

/* Connections of two ends, one each; `own_end` is the one of the process. */
static int own_end;
static struct child peer;
static const char to_child[] = "from the parent, unread", to_parent[] = "from the child, unread";

static void send_to_parent(void)
{
    expect_written(own_end, to_parent, sizeof to_parent, "connection");
}

static void check_peer(void)
{
    expect_read(own_end, to_child, sizeof to_child, "what the parent sent");
    send_to_parent();
}

static const struct item peer_item = {.set_up = send_to_parent, .check = check_peer};

static void start_peer(int mine, int theirs)
{
    own_end = theirs;
    child_start(&peer, &peer_item);
    own_end = mine;
    close(theirs);
    expect_written(own_end, to_child, sizeof to_child, "connection");
}

static void check_connection(void)
{
    /* The parent empties its side first, so the child's check can fill it again; then it refills the other. */
    expect_read(own_end, to_parent, sizeof to_parent, "what the child sent");
    child_check(&peer, "child at the other end");
    expect_written(own_end, to_child, sizeof to_child, "connection");
}

static void set_up_loopback(void)
{
    int listening = listen_on_loopback();
    int theirs = connect_to(listening);
    int mine = must(accept4(listening, NULL, NULL, SOCK_CLOEXEC), "accept4");
    close(listening);
    start_peer(mine, theirs);
}

const struct item item_tree_loopback = {
    .name = "tree-loopback", .set_up = set_up_loopback, .check = check_connection, .traits = TREE};

static void set_up_pair(void)
{
    int ends[2];
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), "socketpair");
    start_peer(ends[0], ends[1]);
}

const struct item item_tree_pair = {
    .name = "tree-pair", .set_up = set_up_pair, .check = check_connection, .traits = TREE};
