"""Works for two to four seconds, then waits for something that never comes: the kind of fault a restart must heal."""
import random
import socket
import time

from beat import Heartbeat

heartbeat = Heartbeat()
heartbeat.ready()
end = time.monotonic() + random.uniform(2, 4)
while time.monotonic() < end:
    heartbeat.beat()
    time.sleep(0.01)
print("asking a device that does not answer ...")
here, there = socket.socketpair()
here.recv(1)
