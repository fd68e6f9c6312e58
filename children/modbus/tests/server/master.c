/* A master made with libmodbus: every function that it knows. Prints "ok" at the end.
 *
 * usage: master tcp PORT | master rtu DEVICE
 */
#include <errno.h>
#include <modbus.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEED(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("line %d: %s: %s\n", __LINE__, #condition, modbus_strerror(errno));             \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

static int same(float a, float b)
{
    return a - b < 0.01f && b - a < 0.01f;
}

int main(int argc, char **argv)
{
    uint8_t bits[8];
    uint16_t words[8], two[2];
    const uint8_t pattern[8] = {1, 0, 1, 1, 0, 0, 1, 0};
    modbus_t *bus;

    if (argc != 3)
        return 2;
    if (strcmp(argv[1], "tcp") == 0)
        bus = modbus_new_tcp("127.0.0.1", atoi(argv[2]));
    else
        bus = modbus_new_rtu(argv[2], 115200, 'N', 8, 1);
    NEED(bus != NULL);
    modbus_set_response_timeout(bus, 10, 0);
    NEED(modbus_set_slave(bus, 1) == 0);
    NEED(modbus_connect(bus) == 0);

    /* FC 5, 15, 1 */
    NEED(modbus_write_bit(bus, 0, 1) == 1);
    NEED(modbus_read_bits(bus, 0, 8, bits) == 8 && bits[0] == 1);
    NEED(modbus_write_bits(bus, 0, 8, pattern) == 8);
    NEED(modbus_read_bits(bus, 0, 8, bits) == 8 && memcmp(bits, pattern, 8) == 0);
    /* FC 2: DI1 and DI3 are pulled low */
    NEED(modbus_read_input_bits(bus, 0, 8, bits) == 8);
    NEED(bits[0] == 1 && bits[1] == 0 && bits[2] == 1 && bits[7] == 0);
    /* FC 4 */
    NEED(modbus_read_input_registers(bus, 0, 3, words) == 3 && words[0] == 1 && words[1] == 0 && words[2] == 1);
    /* FC 6, 16, 3: hundredths of a volt */
    NEED(modbus_write_register(bus, 100, 500) == 1);
    NEED(modbus_read_registers(bus, 100, 1, words) == 1 && words[0] >= 499 && words[0] <= 501);
    words[0] = 725;
    NEED(modbus_write_registers(bus, 100, 1, words) == 1);
    NEED(modbus_read_registers(bus, 100, 1, words) == 1 && words[0] >= 724 && words[0] <= 726);
    /* The same as a floating point number, in both word orders. */
    NEED(modbus_read_registers(bus, 110, 2, two) == 2 && same(modbus_get_float_abcd(two), words[0] / 100.0f));
    NEED(modbus_read_registers(bus, 120, 2, two) == 2 && same(modbus_get_float_cdab(two), words[0] / 100.0f));
    modbus_set_float_cdab(3.0f, two);
    NEED(modbus_write_registers(bus, 120, 2, two) == 2);
    NEED(modbus_read_registers(bus, 100, 1, words) == 1 && words[0] >= 299 && words[0] <= 301);
    /* FC 23: writes, then reads */
    words[0] = 400;
    NEED(modbus_write_and_read_registers(bus, 100, 1, words, 110, 2, two) == 2);
    NEED(same(modbus_get_float_abcd(two), 4.0f));
    /* FC 22: the watchdog register keeps what it is given */
    NEED(modbus_write_register(bus, 900, 0x12) == 1);
    NEED(modbus_mask_write_register(bus, 900, 0xf2, 0x25) == 1);
    NEED(modbus_read_registers(bus, 900, 1, words) == 1 && words[0] == 0x17);
    /* Exceptions */
    NEED(modbus_read_registers(bus, 101, 1, words) == -1 && errno == EMBXILADD);
    NEED(modbus_read_registers(bus, 110, 1, two) == 1);
    NEED(modbus_write_register(bus, 110, 1) == -1 && errno == EMBXILADD);
    NEED(modbus_write_register(bus, 100, 1001) == -1 && errno == EMBXILVAL);
    NEED(modbus_write_bit(bus, 8, 1) == -1 && errno == EMBXILADD);

    modbus_close(bus);
    modbus_free(bus);
    puts("ok");
    return 0;
}
