"""A Modbus TCP server made with pymodbus: what multus-modbus is compared with.

usage: server.py PORT
"""

import sys
import warnings

from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import StartTcpServer

warnings.simplefilter("ignore")
block = ModbusSequentialDataBlock(1, [0] * 18)
context = ModbusServerContext(devices=ModbusDeviceContext(hr=block, ir=block), single=True)
StartTcpServer(context, address=("127.0.0.1", int(sys.argv[1])))
