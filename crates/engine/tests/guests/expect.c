/* The checks and small helpers that guests are made of. Each failure says what, what was expected and what came. */
#include "guest.h"

#include <stdarg.h>

long must(long result, const char *what)
{
    if (result < 0)
        bad("%s: expected success, got %s", what, strerror(errno));
    return result;
}

void must_thread(int error, const char *what)
{
    if (error)
        bad("%s: expected success, got %s", what, strerror(error));
}

void expect(long expected, long got, const char *what, ...)
{
    char text[200];
    if (expected == got)
        return;
    va_list arguments;
    va_start(arguments, what);
    vsnprintf(text, sizeof text, what, arguments);
    va_end(arguments);
    bad("%s: expected %ld, got %ld", text, expected, got);
}

void expect_between(long low, long high, long got, const char *what)
{
    if (got < low || got > high)
        bad("%s: expected %ld to %ld, got %ld", what, low, high, got);
}

void expect_text(const char *expected, const char *got, const char *what)
{
    if (strcmp(expected, got) != 0)
        bad("%s: expected %.150s, got %.150s", what, expected, got);
}

void expect_bytes(const void *expected, const void *got, size_t size_bytes, const char *what)
{
    const unsigned char *left = expected, *right = got;
    for (size_t i = 0; i < size_bytes; i++)
        if (left[i] != right[i])
            bad("%s: byte %zu of %zu: expected %d, got %d", what, i, size_bytes, left[i], right[i]);
}

void expect_error(int error, long result, const char *what)
{
    if (result >= 0)
        bad("%s: expected %s, got success (%ld)", what, strerror(error), result);
    if (errno != error)
        bad("%s: expected %s, got %s", what, strerror(error), strerror(errno));
}

static uint64_t word(uint64_t seed, size_t index)
{
    uint64_t mixed = (seed + 1) * 0x9e3779b97f4a7c15u + index * 0xbf58476d1ce4e5b9u;
    mixed ^= mixed >> 29;
    mixed *= 0x94d049bb133111ebu;
    return mixed ^ (mixed >> 32);
}

void fill(void *memory, size_t size_bytes, uint64_t seed)
{
    unsigned char *bytes = memory;
    for (size_t i = 0; i < size_bytes; i += 8) {
        uint64_t value = word(seed, i);
        memcpy(bytes + i, &value, size_bytes - i < 8 ? size_bytes - i : 8);
    }
}

long first_difference(const void *memory, size_t size_bytes, uint64_t seed)
{
    const unsigned char *bytes = memory;
    for (size_t i = 0; i < size_bytes; i += 8) {
        uint64_t value = word(seed, i);
        if (memcmp(bytes + i, &value, size_bytes - i < 8 ? size_bytes - i : 8) != 0)
            return i;
    }
    return -1;
}

void expect_filled(const void *memory, size_t size_bytes, uint64_t seed, const char *what)
{
    long at = first_difference(memory, size_bytes, seed);
    if (at >= 0)
        bad("%s: at byte %ld of %zu: expected pattern %lx, got other bytes", what, at, size_bytes, (long)seed);
}

size_t read_file(const char *path, char *text, size_t size_bytes)
{
    int descriptor = must(open(path, O_RDONLY | O_CLOEXEC), path);
    size_t length = 0;
    for (ssize_t got; (got = must(read(descriptor, text + length, size_bytes - 1 - length), path)) > 0;)
        length += got;
    close(descriptor);
    text[length] = 0;
    return length;
}

void status_value(const char *name, char *value, size_t size_bytes)
{
    char text[8192];
    size_t name_bytes = strlen(name);
    read_file("/proc/thread-self/status", text, sizeof text);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        if (strncmp(line, name, name_bytes) == 0 && line[name_bytes] == ':') {
            snprintf(value, size_bytes, "%s", line + name_bytes + 2);
            return;
        }
    bad("/proc/thread-self/status: expected a line %s, got none", name);
}

void expect_read(int descriptor, const void *expected, size_t size_bytes, const char *what)
{
    char got[65536];
    if (size_bytes > sizeof got)
        bad("%s: %zu bytes are more than a check reads at once", what, size_bytes);
    expect(size_bytes, must(read(descriptor, got, size_bytes), what), "%s: bytes read", what);
    expect_bytes(expected, got, size_bytes, what);
}

void expect_written(int descriptor, const void *bytes, size_t size_bytes, const char *what)
{
    expect(size_bytes, must(write(descriptor, bytes, size_bytes), what), "%s: bytes written", what);
}

void move_descriptor(int descriptor, int wanted)
{
    if (descriptor == wanted)
        return;
    int flags = must(fcntl(descriptor, F_GETFD), "F_GETFD");
    must(dup3(descriptor, wanted, flags & FD_CLOEXEC ? O_CLOEXEC : 0), "dup3");
    close(descriptor);
}
