//! Message ids: where a message lies (offset id) and who made it (unique key). Both are upper-case
//! hex, 32 characters with an IPv4 address, 56 with IPv6.
//!
//! Sources: `MessageDecoder.createMessageId`, `MessageClientIDSetter`; spec page store §1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const ID_BYTES_MAX: usize = 16 + 4 + 8;

/// Text of an id, without an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdText {
    hex: [u8; 2 * ID_BYTES_MAX],
    len: usize,
}

impl IdText {
    const fn new() -> Self {
        Self {
            hex: [b'0'; 2 * ID_BYTES_MAX],
            len: 0,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        for byte in bytes {
            self.hex[self.len] = HEX[usize::from(byte >> 4)];
            self.hex[self.len + 1] = HEX[usize::from(byte & 15)];
            self.len += 2;
        }
    }

    fn push_ip(&mut self, ip: IpAddr) {
        match ip.to_canonical() {
            IpAddr::V4(ip) => self.push(&ip.octets()),
            IpAddr::V6(ip) => self.push(&ip.octets()),
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.hex[..self.len]
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("hex digits are ASCII")
    }
}

/// Where a message lies: the broker that stores it and its physical offset there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OffsetId {
    pub store_host: SocketAddr,
    pub physical_offset: i64,
}

impl OffsetId {
    pub fn to_text(self) -> IdText {
        let mut text = IdText::new();
        text.push_ip(self.store_host.ip());
        text.push(&u32::from(self.store_host.port()).to_be_bytes());
        text.push(&self.physical_offset.to_be_bytes());
        text
    }

    /// `None` for anything but 32 or 56 hex digits with a port below 65536.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; ID_BYTES_MAX];
        let bytes = unhex(text.as_bytes(), &mut bytes)?;
        let (ip, rest): (IpAddr, _) = if text.len() == 2 * ID_BYTES_MAX {
            let (ip, rest) = bytes.split_first_chunk::<16>()?;
            (Ipv6Addr::from(*ip).into(), rest)
        } else {
            let (ip, rest) = bytes.split_first_chunk::<4>()?;
            (Ipv4Addr::from(*ip).into(), rest)
        };
        let (port, offset) = rest.split_first_chunk::<4>()?;
        let port = u16::try_from(u32::from_be_bytes(*port)).ok()?;
        let physical_offset = i64::from_be_bytes(offset.try_into().ok()?);
        Some(Self {
            store_host: SocketAddr::new(ip, port),
            physical_offset,
        })
    }
}

fn unhex<'b>(hex: &[u8], bytes: &'b mut [u8; ID_BYTES_MAX]) -> Option<&'b [u8]> {
    let (pairs, []) = hex.as_chunks::<2>() else {
        return None;
    };
    let out = bytes.get_mut(..pairs.len())?;
    for (byte, [high, low]) in out.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
    }
    Some(out)
}

/// Makes the unique keys of one process. Time and counter come from the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UniqueKeys {
    prefix: IdText,
}

impl UniqueKeys {
    /// `instance` tells apart two makers in one process, as the class loader's hash does in Java.
    pub fn new(ip: IpAddr, pid: u16, instance: u32) -> Self {
        let mut prefix = IdText::new();
        prefix.push_ip(ip);
        prefix.push(&pid.to_be_bytes());
        prefix.push(&instance.to_be_bytes());
        Self { prefix }
    }

    /// `month_ms`: milliseconds since the start of the month. `counter` makes keys of one
    /// millisecond differ.
    pub fn key(&self, month_ms: u32, counter: u16) -> IdText {
        let mut text = self.prefix;
        text.push(&month_ms.to_be_bytes());
        text.push(&counter.to_be_bytes());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, physical_offset: i64, expected: &str) {
        let id = OffsetId {
            store_host: host.parse().unwrap(),
            physical_offset,
        };
        assert_eq!(id.to_text().as_str(), expected);
        assert_eq!(OffsetId::parse(expected), Some(id));
        assert_eq!(OffsetId::parse(&expected.to_lowercase()), Some(id));
    }

    #[test]
    fn offset_ids() {
        check(
            "127.0.0.1:10911",
            0x1234,
            "7F00000100002A9F0000000000001234",
        );
        check(
            "[fe80::1]:10911",
            -1,
            "FE80000000000000000000000000000100002A9FFFFFFFFFFFFFFFFF",
        );
    }

    fn check_refused(text: &str) {
        assert_eq!(OffsetId::parse(text), None, "{text}");
    }

    #[test]
    fn refused_ids() {
        check_refused("");
        check_refused("7F00000100002A9F000000000000123");
        check_refused("7F00000100002A9F00000000000012");
        check_refused("7F00000100002A9F00000000000012zz");
        check_refused("7F00000100012A9F0000000000001234");
        check_refused("7F00000100002A9F000000000000123400");
        check_refused(&"0".repeat(58));
    }

    #[test]
    fn unique_keys() {
        let keys = UniqueKeys::new("10.0.0.1".parse().unwrap(), 0xABCD, 0x0102_0304);
        assert_eq!(keys.key(5, 6).as_str(), "0A000001ABCD01020304000000050006");
        let keys = UniqueKeys::new("::1".parse().unwrap(), 1, 2);
        assert_eq!(keys.key(5, 6).as_str().len(), 56);
    }
}
