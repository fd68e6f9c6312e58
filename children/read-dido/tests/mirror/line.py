"""A long line: joins two network namespaces by a pair of TUN interfaces called wan0, with delay and loss.

usage: line.py NAMESPACE NAMESPACE SETTINGS

The file SETTINGS holds "delay_ms loss_percent", each way; it is looked at for every packet. Says "ready" when the interfaces
are there. Does what netem of tc does, on kernels that lack it.
"""
import ctypes, fcntl, heapq, os, random, select, struct, sys, time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000


def tun(namespace):
    with open("/run/netns/" + namespace) as there:
        if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), "setns " + namespace)
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"wan0", IFF_TUN | IFF_NO_PI))
    return fd


ends = [tun(sys.argv[1]), tun(sys.argv[2])]
print("ready", flush=True)
under_way, number = [], 0
while True:
    wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
    for end in select.select(ends, [], [], wait)[0]:
        try:
            packet = os.read(end, 65536)
        except OSError:  # the interface is down
            time.sleep(0.01)
            continue
        delay_ms, loss_percent = map(float, open(sys.argv[3]).read().split())
        if random.uniform(0, 100) >= loss_percent:
            number += 1
            due = time.monotonic() + delay_ms / 1000
            heapq.heappush(under_way, (due, number, ends[1 - ends.index(end)], packet))
    while under_way and under_way[0][0] <= time.monotonic():
        _, _, end, packet = heapq.heappop(under_way)
        try:
            os.write(end, packet)
        except OSError:
            pass
