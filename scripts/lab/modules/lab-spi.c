// SPDX-License-Identifier: GPL-2.0
/*
 * An SPI bus with an MCP3208 converter at chip enable 0 and an MCP4922 converter for output at chip enable 1, for tests of
 * programs that use /dev/spidevN.x. Kernel modules can use the kernel's SPI interface only under this licence.
 *
 * The world outside the chips is in /sys/module/lab_spi/parameters/:
 *   measured   what the eight channels of the MCP3208 have, 0 to 4095
 *   converted  what the two channels of the MCP4922 were given last, 0 to 4095, -1 before; read only
 *   broken     1: the bus reports an error for every transfer
 */
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/spi/spi.h>

static int bus;
module_param(bus, int, 0444);
static int measured[8];
module_param_array(measured, int, NULL, 0644);
static int converted[2] = { -1, -1 };
module_param_array(converted, int, NULL, 0444);
static int broken;
module_param(broken, int, 0644);

static struct platform_device *parent;
static struct spi_controller *controller;

/* Data sheet of the MCP3208: start bit, single-ended, three bits of channel; the 12 bits come with the last byte and a half. */
static void mcp3208(const u8 *sent, u8 *received, unsigned int length)
{
	int channel, value;

	if (!sent || !received || length < 3 || (sent[0] & 0x06) != 0x06)
		return;
	channel = (sent[0] & 1) << 2 | sent[1] >> 6;
	value = READ_ONCE(measured[channel]) & 0xfff;
	received[1] = value >> 8;
	received[2] = value & 0xff;
}

/* Data sheet of the MCP4922: bit 15 is the channel, bit 12 set: not shut down; 12 bits of value. */
static void mcp4922(const u8 *sent, unsigned int length)
{
	if (sent && length == 2 && sent[0] & 0x10)
		WRITE_ONCE(converted[sent[0] >> 7], (sent[0] & 0x0f) << 8 | sent[1]);
}

static int transfer_one(struct spi_controller *controller, struct spi_device *device, struct spi_transfer *transfer)
{
	/* spidev may give the same buffer for both directions: the answer is made after the question was read. */
	u8 question[4] = { 0 };

	if (READ_ONCE(broken))
		return -EIO;
	if (transfer->len > sizeof(question))
		return -EMSGSIZE;
	if (transfer->tx_buf)
		memcpy(question, transfer->tx_buf, transfer->len);
	if (transfer->rx_buf)
		memset(transfer->rx_buf, 0, transfer->len);
	if (device->chip_select == 0)
		mcp3208(question, transfer->rx_buf, transfer->len);
	else
		mcp4922(question, transfer->len);
	return 0;
}

static int setup(struct spi_device *device)
{
	return 0;
}

static int __init lab_spi_init(void)
{
	struct spi_board_info chip = { .modalias = "lab-chip", .max_speed_hz = 20000000 };
	int error;

	parent = platform_device_register_simple("lab-spi", -1, NULL, 0);
	if (IS_ERR(parent))
		return PTR_ERR(parent);
	controller = spi_alloc_master(&parent->dev, 0);
	if (!controller) {
		error = -ENOMEM;
		goto no_controller;
	}
	controller->bus_num = bus;
	controller->num_chipselect = 2;
	controller->transfer_one = transfer_one;
	controller->setup = setup;
	controller->max_speed_hz = 20000000;
	error = spi_register_controller(controller);
	if (error) {
		spi_controller_put(controller);
		goto no_controller;
	}
	for (chip.chip_select = 0; chip.chip_select < 2; chip.chip_select++)
		if (!spi_new_device(controller, &chip)) {
			spi_unregister_controller(controller);
			error = -ENODEV;
			goto no_controller;
		}
	return 0;

no_controller:
	platform_device_unregister(parent);
	return error;
}

static void __exit lab_spi_exit(void)
{
	spi_unregister_controller(controller);
	platform_device_unregister(parent);
}

module_init(lab_spi_init);
module_exit(lab_spi_exit);
MODULE_DESCRIPTION("Simulated SPI bus for tests");
MODULE_LICENSE("GPL");
