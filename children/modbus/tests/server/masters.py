"""A master made with pymodbus: reads and writes the map of the original. Prints "ok" at the end.

usage: masters.py tcp PORT | masters.py rtu DEVICE
"""

import sys
import time

from pymodbus.client import ModbusSerialClient, ModbusTcpClient

kind, where = sys.argv[1:]
if kind == "tcp":
    client = ModbusTcpClient("127.0.0.1", port=int(where), timeout=10)
else:
    client = ModbusSerialClient(where, baudrate=115200, parity="N", stopbits=1, timeout=10)
assert client.connect(), "connected"
unit = {"device_id": 1}


def good(response):
    assert not response.isError(), response
    return response


def refused(response, code):
    assert response.isError() and response.exception_code == code, (response, code)


# DI1 and DI3 are pulled low by the test; at the start all outputs are off, which is the high level.
inputs = [1, 0, 1, 0, 0, 0, 0, 0]
assert good(client.read_holding_registers(0, count=8, **unit)).registers == inputs
assert good(client.read_input_registers(0, count=8, **unit)).registers == inputs
assert good(client.read_discrete_inputs(0, count=8, **unit)).bits == [bool(i) for i in inputs]
assert good(client.read_input_registers(10, count=8, **unit)).registers == [1] * 8
good(client.write_coil(0, False, **unit))
assert good(client.read_holding_registers(10, count=8, **unit)).registers == [0] + [1] * 7
pattern = [True, False, True, False, False, True, True, False]
good(client.write_coils(0, pattern, **unit))
assert good(client.read_input_registers(10, count=8, **unit)).registers == [int(p) for p in pattern]
assert good(client.read_coils(0, count=8, **unit)).bits == pattern
refused(client.read_holding_registers(8, count=1, **unit), 2)
refused(client.read_coils(7, count=2, **unit), 2)
refused(client.write_register(10, 1, **unit), 2)
identity = good(client.read_device_information(read_code=2, object_id=0, **unit)).information
assert identity[0] == b"multusd" and identity[1] == b"multus-modbus", identity
if kind == "tcp":
    refused(client.read_coils(0, count=1, device_id=7), 11)
    assert good(client.read_coils(0, count=8, device_id=255)).bits == pattern
    begun = time.monotonic()
    for _ in range(200):
        good(client.read_holding_registers(0, count=8, **unit))
    assert time.monotonic() - begun < 30
client.close()
print("ok")
