/* The guest program: picks an item, sets it up, says "ready" and answers commands on its channel.
 *
 * `guest ITEM` speaks over standard input and output, or over TCP to GUEST_CONNECT=address:port. Commands are lines:
 * "check" gives "ok" or "bad: ...", "unique" gives what must differ between clones, "end" ends the process;
 * "restored" says that this is a restored process, for the one item (`tcp-outbound`) that has to know. `guest
 * --list` names the items; --list-trees, --list-refusable, --list-outsiders and --list-unique some of them.
 *
 * The serving thread blocks in one plain read, so that every item also tests how that read comes back: it may give a
 * command or the end of the channel, and nothing else. */
#include "guest.h"

#include <arpa/inet.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>

int channel_descriptor = -1;
bool told_restored;
static char message[512];
static char complaint[512];
static _Atomic int complained;
static sigjmp_buf escape;
static char directory[64];
static pid_t directory_owner;
static const char *foreign;

const struct item *find_item(const char *name)
{
    for (size_t i = 0; items[i]; i++)
        if (strcmp(items[i]->name, name) == 0)
            return items[i];
    return NULL;
}

void bad(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    siglongjmp(escape, 1);
}

void complain(const char *format, ...)
{
    int first = 0;
    if (!atomic_compare_exchange_strong(&complained, &first, 1))
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(complaint, sizeof complaint, format, arguments);
    va_end(arguments);
    atomic_store(&complained, 2);
}

void skip(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    siglongjmp(escape, 2);
}

const char *scratch(const char *name)
{
    char *path = NULL;
    if (!directory[0]) {
        snprintf(directory, sizeof directory, "/tmp/guest-XXXXXX");
        if (!mkdtemp(directory))
            bad("mkdtemp: %s", strerror(errno));
        directory_owner = getpid();
    }
    must(asprintf(&path, "%s/%s", directory, name), "asprintf");
    return path;
}

void remove_later(const char *path)
{
    foreign = path;
    directory_owner = getpid();
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status, (void)kind, (void)where;
    return remove(path);
}

static void remove_scratch(void)
{
    /* A forked child has the variables too, but the files belong to its parent. */
    if (directory_owner != getpid())
        return;
    if (directory[0])
        nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    if (foreign)
        unlink(foreign);
}

static void say(int out, const char *format, const char *text)
{
    char line[600];
    int length = snprintf(line, sizeof line, format, text);
    /* Nobody is left to be told when this fails. */
    if (write(out, line, length) != length)
        _exit(3);
}

static void report_complaint(void)
{
    if (!atomic_load(&complained))
        return;
    await(&complained, 2, "a complaint being written");
    bad("%s", complaint);
}

/* Runs one stage of an item; what it found is in `message` when the answer is not zero. */
static int run(void (*stage)(void))
{
    int outcome = sigsetjmp(escape, 1);
    if (outcome)
        return outcome;
    report_complaint();
    if (stage)
        stage();
    report_complaint();
    return 0;
}

static void obey(const struct item *item, int out, const char *command)
{
    if (strcmp(command, "check") == 0) {
        if (run(item->check))
            say(out, "bad: %s\n", message);
        else
            say(out, "%s\n", "ok");
    } else if (strcmp(command, "unique") == 0) {
        char line[512] = "-";
        if (item->unique)
            item->unique(line, sizeof line);
        say(out, "%s\n", line);
    } else if (strcmp(command, "restored") == 0) {
        told_restored = true;
        say(out, "%s\n", "ok");
    } else if (strcmp(command, "end") == 0) {
        remove_scratch();
        _exit(0);
    } else {
        say(out, "bad: no such command: %s\n", command);
    }
}

void serve(const struct item *item, int in, int out)
{
    char line[64];
    size_t length = 0;
    int outcome = run(item->set_up);
    if (outcome) {
        say(out, outcome == 2 ? "skip: %s\n" : "bad: set-up: %s\n", message);
        remove_scratch();
        _exit(outcome == 2 ? 0 : 1);
    }
    say(out, "%s\n", "ready");
    for (;;) {
        ssize_t got = read(in, line + length, sizeof line - 1 - length);
        if (got < 0) {
            complain("read of the channel: expected a command, got %s", strerror(errno));
            if (errno == EINTR)
                continue;
        }
        if (got <= 0) {
            remove_scratch();
            _exit(2);
        }
        length += got;
        line[length] = 0;
        for (char *end; (end = memchr(line, '\n', length)); length = strlen(line)) {
            *end = 0;
            obey(item, out, line);
            memmove(line, end + 1, length - (end - line));
        }
        if (length == sizeof line - 1)
            length = 0;
    }
}

static int channel(const char *where)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[64];
    int port;
    if (sscanf(where, "%63[^:]:%d", host, &port) != 2 || !inet_aton(host, &address.sin_addr)) {
        fprintf(stderr, "GUEST_CONNECT=%s is not address:port\n", where);
        exit(1);
    }
    address.sin_port = htons(port);
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0 || connect(descriptor, (struct sockaddr *)&address, sizeof address) < 0) {
        perror(where);
        exit(1);
    }
    return descriptor;
}

static int list(const char *which)
{
    for (size_t i = 0; items[i]; i++) {
        const struct item *item = items[i];
        if (item->traits & APART)
            continue;
        if (strcmp(which, "--list") == 0 || (strcmp(which, "--list-trees") == 0 && (item->traits & TREE)) ||
            (strcmp(which, "--list-refusable") == 0 && (item->traits & REFUSABLE)) ||
            (strcmp(which, "--list-outsiders") == 0 && (item->traits & OUTSIDER)) ||
            (strcmp(which, "--list-unique") == 0 && item->unique))
            puts(item->name);
    }
    return 0;
}

int main(int count, char **arguments)
{
    if (count == 2 && strncmp(arguments[1], "--list", 6) == 0)
        return list(arguments[1]);
    const struct item *item = count == 2 ? find_item(arguments[1]) : NULL;
    if (!item) {
        fprintf(stderr, "usage: guest ITEM (one of `guest --list`)\n");
        return 1;
    }
    const char *where = getenv("GUEST_CONNECT");
    if (where)
        channel_descriptor = channel(where);
    serve(item, where ? channel_descriptor : STDIN_FILENO, where ? channel_descriptor : STDOUT_FILENO);
    return 0;
}
