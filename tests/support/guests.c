/* Guests that misbehave, one by -DMODE; linked statically, so that they run in an empty root too. */
#include <string.h>
#include <unistd.h>

enum { SILENT, DIES, HELLO_THEN_SILENT, HELLO_THEN_DIES, GARBAGE };

static void hello(void) {
    /* u32 length, u8 version, u8 type HELLO, u64 first instruction, u64 hello, u32 pid */
    unsigned char frame[4 + 2 + 8 + 8 + 4];
    memset(frame, 0, sizeof frame);
    frame[0] = sizeof frame - 4;
    frame[4] = 2;
    frame[5] = 1;
    frame[6] = 1;
    frame[14] = 2;
    frame[22] = 1;
    if (write(3, frame, sizeof frame) != sizeof frame) _exit(9);
}

int main(void) {
    static const char message[] = "guest: out of luck\n";
    switch (MODE) {
    case DIES:
        if (write(2, message, sizeof message - 1) < 0) _exit(9);
        _exit(3);
    case HELLO_THEN_SILENT:
        hello();
        break;
    case HELLO_THEN_DIES:
        hello();
        _exit(3);
    case GARBAGE:
        if (write(3, "HTTP/1.1 200 OK\r\n\r\n", 19) < 0) _exit(9);
        break;
    }
    /* Nobody answers, and the end of the channel is not noticed either. */
    for (;;) pause();
}
