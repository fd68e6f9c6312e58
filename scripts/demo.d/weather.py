"""Tells a made-up temperature, and beats twenty times a second."""
import random
import time

from beat import Heartbeat

heartbeat = Heartbeat()
heartbeat.ready()
celsius = 12.0
for turn in range(2**63):
    celsius += random.uniform(-0.01, 0.01)
    if turn % 100 == 0:
        print(f"{celsius:.1f} degrees outside")
    heartbeat.beat()
    time.sleep(0.05)
