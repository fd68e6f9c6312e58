/* An owner of outputs, as a program in C is one: the lamp follows the button. */
#include <multus.h>
#include <stddef.h>

int main(void)
{
    multus_t *multus = multus_open();
    multus_io_t *io = multus_io_open();
    const int button = multus_io_line(io, "DI1"), lamp = multus_io_line(io, "DO1");
    uint64_t seen = 0;
    multus_ready(multus);
    for (;;) {
        if (multus_io_set(io, lamp, multus_io_read(io, button, NULL) == 1 ? multus_io_value(io, button) : 0) != 0) {
            return 1;
        }
        multus_beat(multus);
        seen = multus_io_wait(io, seen, 20000000);
    }
}
