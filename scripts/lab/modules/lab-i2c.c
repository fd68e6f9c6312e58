// SPDX-License-Identifier: GPL-2.0
/*
 * An I2C bus with two PCF8574 port expanders (0x38, 0x39) and two LM75 temperature sensors (0x48, 0x49), for tests of
 * programs that use /dev/i2c-N. Kernel modules can use the kernel's I2C interface only under this licence.
 *
 * The world outside the chips is in /sys/module/lab_i2c/parameters/:
 *   pulled    per expander: the pins that something pulls low read 0 here (mask; 255: none is pulled)
 *   latched   per expander: the byte that was written last, 255 before; read only
 *   register  per sensor: the 16 bits of its temperature register, 0x1900 = 25 degrees Celsius
 *   silent    address of a chip that does not acknowledge, 0: none
 *   hanging   address of a chip that holds the clock until the bus driver gives up, 0: none
 *   transfers messages so far; read only
 */
#include <linux/delay.h>
#include <linux/i2c.h>
#include <linux/module.h>

#define EXPANDER 0x38
#define SENSOR 0x48
/* A usual time after which bus drivers give up. */
#define PATIENCE_MS 200

static int bus = 1;
module_param(bus, int, 0444);
static int pulled[2] = { 0xff, 0xff };
module_param_array(pulled, int, NULL, 0644);
static int latched[2] = { 0xff, 0xff };
module_param_array(latched, int, NULL, 0444);
static int temperature[2] = { 0x1900, 0x1900 };
module_param_array_named(register, temperature, int, NULL, 0644);
static int silent, hanging, transfers;
module_param(silent, int, 0644);
module_param(hanging, int, 0644);
module_param(transfers, int, 0444);

/* Quasi-bidirectional pins: one reads high only where a 1 was written and nothing pulls it low. */
static int expander(int chip, struct i2c_msg *message)
{
	int i;

	for (i = 0; i < message->len; i++)
		if (message->flags & I2C_M_RD)
			message->buf[i] = READ_ONCE(latched[chip]) & READ_ONCE(pulled[chip]);
		else
			WRITE_ONCE(latched[chip], message->buf[i]);
	return 0;
}

/* The first byte written says which of four registers is meant; only the temperature, number 0, is ever read. */
static int sensor(int chip, struct i2c_msg *message)
{
	static u8 pointer[2];
	u16 value = pointer[chip] == 0 ? READ_ONCE(temperature[chip]) : 0;
	int i;

	if (!(message->flags & I2C_M_RD)) {
		if (message->len > 0)
			pointer[chip] = message->buf[0] & 3;
		return 0;
	}
	for (i = 0; i < message->len; i++)
		message->buf[i] = value >> (i & 1 ? 0 : 8);
	return 0;
}

static int one(struct i2c_msg *message)
{
	transfers++;
	if (message->addr == READ_ONCE(silent))
		return -ENXIO;
	if (message->addr == READ_ONCE(hanging)) {
		msleep(PATIENCE_MS);
		return -ETIMEDOUT;
	}
	switch (message->addr & ~1) {
	case EXPANDER:
		return expander(message->addr & 1, message);
	case SENSOR:
		return sensor(message->addr & 1, message);
	}
	return -ENXIO;
}

/* The core of the kernel's I2C lets in one caller at a time. */
static int transfer(struct i2c_adapter *adapter, struct i2c_msg *messages, int count)
{
	int i, error;

	for (i = 0; i < count; i++) {
		error = one(&messages[i]);
		if (error)
			return error;
	}
	return count;
}

static u32 functionality(struct i2c_adapter *adapter)
{
	return I2C_FUNC_I2C | I2C_FUNC_SMBUS_EMUL;
}

static const struct i2c_algorithm algorithm = {
	.master_xfer = transfer,
	.functionality = functionality,
};

static struct i2c_adapter adapter = {
	.owner = THIS_MODULE,
	.algo = &algorithm,
	.name = "lab-i2c",
};

static int __init lab_i2c_init(void)
{
	adapter.nr = bus;
	return i2c_add_numbered_adapter(&adapter);
}

static void __exit lab_i2c_exit(void)
{
	i2c_del_adapter(&adapter);
}

module_init(lab_i2c_init);
module_exit(lab_i2c_exit);
MODULE_DESCRIPTION("Simulated I2C bus for tests");
MODULE_LICENSE("GPL");
