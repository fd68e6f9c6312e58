//! The protocol data unit: what a master asks, and the answers. Pure.
//!
//! "MODBUS Application Protocol Specification V1.1b3" (modbus.org) says what is right; its section numbers stand at the
//! limits below. Whatever comes in, [`decode`] gives a request that is whole and within these limits, or the exception that
//! the specification names: 01 for a function that is not here, 03 for lengths, quantities and values.

/// An exception code (section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exception {
    /// The function is not there, or not allowed.
    IllegalFunction = 1,
    /// An address is not there, or cannot be written.
    IllegalAddress = 2,
    /// A length, quantity or value is not allowed.
    IllegalValue = 3,
    /// The value is not known, or could not be written.
    DeviceFailure = 4,
    /// Not now: the output is held at its safe value.
    Busy = 6,
    /// Another unit, which is not behind this server.
    NoTarget = 11,
}

/// The two tables of single bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bits {
    /// Functions 1, 5 and 15.
    Coils,
    /// Function 2.
    Inputs,
}

/// The two tables of registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registers {
    /// Functions 3, 6, 16, 22 and 23.
    Holding,
    /// Function 4.
    Inputs,
}

/// What is asked. Quantities are within their limits, and data is as long as they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    /// 1, 2: `count` bits, 1 to 2000.
    ReadBits { table: Bits, address: u16, count: u16 },
    /// 3, 4: `count` registers, 1 to 125.
    ReadRegisters { table: Registers, address: u16, count: u16 },
    /// 5
    WriteCoil { address: u16, on: bool },
    /// 6
    WriteRegister { address: u16, value: u16 },
    /// 15: `count` bits, 1 to 1968, lowest bit first.
    WriteCoils { address: u16, count: u16, packed: &'a [u8] },
    /// 16: 1 to 123 registers, two bytes each.
    WriteRegisters { address: u16, values: &'a [u8] },
    /// 22
    MaskRegister { address: u16, and: u16, or: u16 },
    /// 23: writes 1 to 121 registers, then reads 1 to 125.
    ReadWriteRegisters { read: u16, count: u16, write: u16, values: &'a [u8] },
    /// 43/14: stream from object (codes 1 to 3), or a single object (4).
    Identify { code: u8, object: u8 },
}

/// The longest one (section 4.1).
pub(crate) const LONGEST: usize = 253;
/// The bit that makes a function code that of an exception.
pub(crate) const EXCEPTION: u8 = 0x80;
/// Function 43.
pub(crate) const ENCAPSULATED: u8 = 0x2b;
/// Function 23.
pub(crate) const EXCHANGE: u8 = 0x17;
/// MEI type of "Read Device Identification".
pub(crate) const IDENTIFICATION: u8 = 0x0e;

/// Sections 6.1 and 6.2.
const MOST_BITS_READ: u16 = 2000;
/// Sections 6.3, 6.4 and 6.17.
const MOST_REGISTERS_READ: u16 = 125;
/// Section 6.11.
const MOST_COILS_WRITTEN: u16 = 1968;
/// Section 6.12.
const MOST_REGISTERS_WRITTEN: u16 = 123;
/// Section 6.17.
const MOST_REGISTERS_EXCHANGED: u16 = 121;

/// What a unit asks for.
///
/// # Errors
/// The exception to answer with.
pub(crate) fn decode(pdu: &[u8]) -> Result<Request<'_>, Exception> {
    let (&function, data) = pdu.split_first().ok_or(Exception::IllegalFunction)?;
    match function {
        1 | 2 => {
            let table = if function == 1 { Bits::Coils } else { Bits::Inputs };
            let [address, count] = words(data)?;
            within(count, MOST_BITS_READ)?;
            Ok(Request::ReadBits { table, address, count })
        }
        3 | 4 => {
            let table = if function == 3 { Registers::Holding } else { Registers::Inputs };
            let [address, count] = words(data)?;
            within(count, MOST_REGISTERS_READ)?;
            Ok(Request::ReadRegisters { table, address, count })
        }
        5 => match words(data)? {
            [address, 0xff00] => Ok(Request::WriteCoil { address, on: true }),
            [address, 0x0000] => Ok(Request::WriteCoil { address, on: false }),
            _ => Err(Exception::IllegalValue),
        },
        6 => {
            let [address, value] = words(data)?;
            Ok(Request::WriteRegister { address, value })
        }
        15 => {
            let ([address, count], packed) = counted(data)?;
            within(count, MOST_COILS_WRITTEN)?;
            exactly(packed, usize::from(count).div_ceil(8))?;
            Ok(Request::WriteCoils { address, count, packed })
        }
        16 => {
            let ([address, count], values) = counted(data)?;
            within(count, MOST_REGISTERS_WRITTEN)?;
            exactly(values, 2 * usize::from(count))?;
            Ok(Request::WriteRegisters { address, values })
        }
        22 => {
            let [address, and, or] = words(data)?;
            Ok(Request::MaskRegister { address, and, or })
        }
        EXCHANGE => {
            let ([read, count, write, written], values) = counted(data)?;
            within(count, MOST_REGISTERS_READ)?;
            within(written, MOST_REGISTERS_EXCHANGED)?;
            exactly(values, 2 * usize::from(written))?;
            Ok(Request::ReadWriteRegisters { read, count, write, values })
        }
        ENCAPSULATED => match data {
            [IDENTIFICATION, code @ 1..=4, object] => Ok(Request::Identify { code: *code, object: *object }),
            [IDENTIFICATION, ..] => Err(Exception::IllegalValue),
            [] => Err(Exception::IllegalValue),
            // Another MEI type is another function (section 6.21).
            _ => Err(Exception::IllegalFunction),
        },
        _ => Err(Exception::IllegalFunction),
    }
}

/// The registers in the data of a request.
pub(crate) fn registers(values: &[u8]) -> impl Iterator<Item = u16> + '_ {
    values.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

/// A bit in the data of a request or an answer.
pub(crate) fn bit(packed: &[u8], index: usize) -> bool {
    packed.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

/// The answer that says no; `pdu` is the request.
pub(crate) fn refuse(pdu: &[u8], exception: Exception, out: &mut Vec<u8>) {
    out.extend_from_slice(&[pdu.first().copied().unwrap_or(0) | EXCEPTION, exception as u8]);
}

/// So many words and nothing else.
fn words<const N: usize>(data: &[u8]) -> Result<[u16; N], Exception> {
    if data.len() != 2 * N {
        return Err(Exception::IllegalValue);
    }
    Ok(std::array::from_fn(|i| u16::from_be_bytes([data[2 * i], data[2 * i + 1]])))
}

/// So many words, the number of bytes that follow, and these bytes.
fn counted<const N: usize>(data: &[u8]) -> Result<([u16; N], &[u8]), Exception> {
    let (head, rest) = data.split_at_checked(2 * N).ok_or(Exception::IllegalValue)?;
    match rest.split_first() {
        Some((&length, bytes)) if bytes.len() == usize::from(length) => Ok((words(head)?, bytes)),
        _ => Err(Exception::IllegalValue),
    }
}

fn within(count: u16, most: u16) -> Result<(), Exception> {
    if (1..=most).contains(&count) { Ok(()) } else { Err(Exception::IllegalValue) }
}

fn exactly(data: &[u8], length: usize) -> Result<(), Exception> {
    if data.len() == length { Ok(()) } else { Err(Exception::IllegalValue) }
}

#[cfg(test)]
mod tests {
    use tokio_modbus::bytes::Bytes;
    use tokio_modbus::prelude::ReadCode;

    use super::*;

    #[test]
    fn requests_are_read_as_the_specification_has_them() {
        let values = [0x12, 0x34, 0x56, 0x78];
        for (pdu, expected) in [
            (&[1, 0, 19, 0, 19][..], Request::ReadBits { table: Bits::Coils, address: 19, count: 19 }),
            (&[2, 0, 196, 7, 0xd0], Request::ReadBits { table: Bits::Inputs, address: 196, count: 2000 }),
            (&[3, 0, 107, 0, 125], Request::ReadRegisters { table: Registers::Holding, address: 107, count: 125 }),
            (&[4, 0xff, 0xff, 0, 1], Request::ReadRegisters { table: Registers::Inputs, address: 65535, count: 1 }),
            (&[5, 0, 172, 0xff, 0], Request::WriteCoil { address: 172, on: true }),
            (&[5, 0, 172, 0, 0], Request::WriteCoil { address: 172, on: false }),
            (&[6, 0, 1, 0, 3], Request::WriteRegister { address: 1, value: 3 }),
            (&[15, 0, 19, 0, 10, 2, 0xcd, 1], Request::WriteCoils { address: 19, count: 10, packed: &[0xcd, 1] }),
            (&[16, 0, 1, 0, 2, 4, 0x12, 0x34, 0x56, 0x78], Request::WriteRegisters { address: 1, values: &values }),
            (&[22, 0, 4, 0, 0xf2, 0, 0x25], Request::MaskRegister { address: 4, and: 0xf2, or: 0x25 }),
            (
                &[23, 0, 3, 0, 6, 0, 14, 0, 2, 4, 0x12, 0x34, 0x56, 0x78],
                Request::ReadWriteRegisters { read: 3, count: 6, write: 14, values: &values },
            ),
            (&[43, 14, 1, 0], Request::Identify { code: 1, object: 0 }),
        ] {
            assert_eq!(decode(pdu), Ok(expected), "{pdu:?}");
            let other = tokio_modbus::Request::try_from(Bytes::copy_from_slice(pdu));
            assert_eq!(other.ok(), Some(as_tokio_modbus(&expected)), "another program reads the same in {pdu:?}");
        }
        assert_eq!(registers(&values).collect::<Vec<_>>(), [0x1234, 0x5678]);
        assert!(bit(&[0xcd, 1], 0) && !bit(&[0xcd, 1], 1) && bit(&[0xcd, 1], 8) && !bit(&[0xcd, 1], 16));
    }

    /// Why the server does not read with it: eight coils are to be written, and there is no byte for them.
    #[test]
    fn tokio_modbus_does_not_live_through_coils_that_are_missing() {
        let request = Bytes::from_static(&[15, 0, 0, 0, 8, 0]);
        assert_eq!(decode(&request), Err(Exception::IllegalValue));
        let other = std::panic::catch_unwind(|| tokio_modbus::Request::try_from(request).is_ok());
        assert!(other.is_err(), "it does now: this server could use it");
    }

    fn as_tokio_modbus(request: &Request<'_>) -> tokio_modbus::Request<'static> {
        use tokio_modbus::Request as Other;
        match *request {
            Request::ReadBits { table: Bits::Coils, address, count } => Other::ReadCoils(address, count),
            Request::ReadBits { table: Bits::Inputs, address, count } => Other::ReadDiscreteInputs(address, count),
            Request::ReadRegisters { table: Registers::Holding, address, count } => {
                Other::ReadHoldingRegisters(address, count)
            }
            Request::ReadRegisters { table: Registers::Inputs, address, count } => {
                Other::ReadInputRegisters(address, count)
            }
            Request::WriteCoil { address, on } => Other::WriteSingleCoil(address, on),
            Request::WriteRegister { address, value } => Other::WriteSingleRegister(address, value),
            Request::WriteCoils { address, count, packed } => {
                Other::WriteMultipleCoils(address, (0..count.into()).map(|index| bit(packed, index)).collect())
            }
            Request::WriteRegisters { address, values } => {
                Other::WriteMultipleRegisters(address, registers(values).collect())
            }
            Request::MaskRegister { address, and, or } => Other::MaskWriteRegister(address, and, or),
            Request::ReadWriteRegisters { read, count, write, values } => {
                Other::ReadWriteMultipleRegisters(read, count, write, registers(values).collect())
            }
            Request::Identify { code, object } => {
                Other::ReadDeviceIdentification(ReadCode::try_from_value(code).expect("1 to 4"), object)
            }
        }
    }

    #[test]
    fn what_is_not_right_has_the_exception_of_the_specification() {
        use Exception::{IllegalFunction, IllegalValue};
        let long = |function: u8, count: u16, bytes: usize, length: u8| {
            let mut pdu = vec![function, 0, 0];
            pdu.extend(count.to_be_bytes());
            pdu.push(length);
            pdu.resize(6 + bytes, 0);
            pdu
        };
        for (pdu, expected) in [
            (vec![], IllegalFunction),
            (vec![0, 0, 0, 0, 1], IllegalFunction),
            (vec![7], IllegalFunction),
            (vec![8, 0, 0, 0, 0], IllegalFunction),
            (vec![0x83, 0, 0, 0, 1], IllegalFunction),
            (vec![1, 0, 0, 0, 0], IllegalValue),
            (vec![1, 0, 0, 7, 0xd1], IllegalValue),
            (vec![2, 0, 0, 0xff, 0xff], IllegalValue),
            (vec![3, 0, 0, 0, 0], IllegalValue),
            (vec![3, 0, 0, 0, 126], IllegalValue),
            (vec![4, 0, 0, 0xff, 0xff], IllegalValue),
            (vec![4], IllegalValue),
            (vec![4, 0, 0, 0], IllegalValue),
            (vec![4, 0, 0, 0, 1, 0], IllegalValue),
            (vec![5, 0, 0, 1, 0], IllegalValue),
            (vec![5, 0, 0, 0xff, 1], IllegalValue),
            (long(15, 0, 0, 0), IllegalValue),
            (long(15, 8, 0, 0), IllegalValue),
            (long(15, 8, 2, 2), IllegalValue),
            (long(15, 9, 1, 1), IllegalValue),
            (long(15, 8, 1, 2), IllegalValue),
            (long(15, 1969, 247, 247), IllegalValue),
            (long(15, 65535, 1, 1), IllegalValue),
            (long(16, 0, 0, 0), IllegalValue),
            (long(16, 1, 1, 1), IllegalValue),
            (long(16, 124, 248, 248), IllegalValue),
            (long(16, 65535, 2, 2), IllegalValue),
            (vec![22, 0, 0, 0, 0], IllegalValue),
            (vec![23, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0], IllegalValue),
            (vec![23, 0, 0, 0, 1, 0, 0, 0, 0, 0], IllegalValue),
            (vec![23, 0, 0, 0, 1, 0, 0, 0, 1, 2, 0], IllegalValue),
            (vec![43], IllegalValue),
            (vec![43, 14, 1], IllegalValue),
            (vec![43, 14, 5, 0], IllegalValue),
            (vec![43, 14, 0, 0], IllegalValue),
            (vec![43, 13, 0, 0], IllegalFunction),
        ] {
            assert_eq!(decode(&pdu), Err(expected), "{pdu:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(pdu in proptest::collection::vec(0u8.., 0..300)) {
            match decode(&pdu) {
                Ok(Request::ReadBits { count, .. }) => assert!((1..=2000).contains(&count)),
                Ok(Request::ReadRegisters { count, .. }) => assert!((1..=125).contains(&count)),
                Ok(Request::WriteCoils { count, packed, .. }) => {
                    assert_eq!(packed.len(), usize::from(count).div_ceil(8));
                }
                Ok(Request::WriteRegisters { values, .. }) => assert!((2..=246).contains(&values.len())),
                Ok(Request::ReadWriteRegisters { values, count, .. }) => {
                    assert!((2..=242).contains(&values.len()) && (1..=125).contains(&count));
                }
                Ok(_) => assert!(pdu.len() <= 7),
                Err(exception) => assert!(matches!(exception, Exception::IllegalFunction | Exception::IllegalValue)),
            }
        }
    }
}
