/* Terminals: `pty` holds a pair with settings, a window size, and bytes that wait in both directions. */
#include "guest.h"

#include <sys/ioctl.h>
#include <termios.h>

static int master, slave;
static char name[64];

static void refill(void)
{
    expect_written(master, "typed\n", 6, "terminal");
    expect_written(slave, "printed", 7, "terminal");
}

static void set_up(void)
{
    struct termios settings;
    struct winsize size = {.ws_row = 33, .ws_col = 123, .ws_xpixel = 640, .ws_ypixel = 480};
    master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0 || ptsname_r(master, name, sizeof name) != 0)
        skip("pseudo-terminals: %s", strerror(errno));
    slave = open(name, O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (slave < 0)
        skip("%s: %s", name, strerror(errno));
    must(tcgetattr(slave, &settings), "tcgetattr");
    settings.c_lflag &= ~ECHO;
    settings.c_oflag &= ~OPOST;
    settings.c_cc[VINTR] = 7;
    cfsetspeed(&settings, B9600);
    must(tcsetattr(slave, TCSANOW, &settings), "tcsetattr");
    must(ioctl(master, TIOCSWINSZ, &size), "TIOCSWINSZ");
    refill();
}

static void check(void)
{
    struct termios settings;
    struct winsize size;
    char got[64], now[64];
    must(tcgetattr(slave, &settings), "tcgetattr");
    expect(0, settings.c_lflag & ECHO, "echo");
    expect(ICANON, settings.c_lflag & ICANON, "line mode");
    expect(0, settings.c_oflag & OPOST, "treatment of output");
    expect(7, settings.c_cc[VINTR], "character that interrupts");
    expect(B9600, cfgetospeed(&settings), "speed");
    must(ioctl(slave, TIOCGWINSZ, &size), "TIOCGWINSZ");
    expect(33, size.ws_row, "rows");
    expect(123, size.ws_col, "columns");
    expect(640, size.ws_xpixel, "width");
    must(ptsname_r(master, now, sizeof now) ? -1 : 0, "ptsname_r");
    expect_text(name, now, "name of the terminal");
    expect_read(slave, "typed\n", 6, "what was typed");
    expect_read(master, "printed", 7, "what was printed");
    expect_error(EAGAIN, read(slave, got, 1), "read of an empty terminal");
    refill();
}

const struct item item_pty = {.name = "pty", .set_up = set_up, .check = check, .traits = REFUSABLE};
