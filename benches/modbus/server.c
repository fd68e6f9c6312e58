/* A Modbus TCP server made with libmodbus, for several masters at a time: what multus-modbus is compared with.
 *
 * usage: server PORT
 */
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    modbus_mapping_t *map = modbus_mapping_new(8, 8, 18, 18);
    modbus_t *bus = argc == 2 ? modbus_new_tcp("127.0.0.1", atoi(argv[1])) : NULL;
    int listener = bus ? modbus_tcp_listen(bus, 64) : -1;
    int most = listener, length;
    fd_set all, ready;

    if (map == NULL || listener < 0) {
        perror("server");
        return 1;
    }
    FD_ZERO(&all);
    FD_SET(listener, &all);
    for (;;) {
        ready = all;
        if (select(most + 1, &ready, NULL, NULL, NULL) < 0)
            return 1;
        for (int fd = 0; fd <= most; fd++) {
            if (!FD_ISSET(fd, &ready))
                continue;
            if (fd == listener) {
                int master = modbus_tcp_accept(bus, &listener);
                if (master >= 0) {
                    FD_SET(master, &all);
                    most = master > most ? master : most;
                }
                continue;
            }
            modbus_set_socket(bus, fd);
            length = modbus_receive(bus, query);
            if (length > 0) {
                modbus_reply(bus, query, length, map);
            } else if (length < 0) {
                close(fd);
                FD_CLR(fd, &all);
            }
        }
    }
}
