//! The body of a batch send: messages back to back, without a place of their own.
//!
//! ```text
//! 4 total size   4 magic 0   4 body CRC 0   4 flag   4+n body   2+p properties
//! ```
//!
//! Topic, queue and times come from the request header. Magic and CRC are not looked at, as in the
//! reference. Source: `MessageDecoder.encodeMessage`; spec page remoting §7.

use std::fmt;

use super::layout::PROPERTIES_BYTES_MAX;

/// One message of a batch, borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubMessage<'a> {
    pub flag: i32,
    pub body: &'a [u8],
    pub properties: &'a [u8],
}

/// The batch body is broken at this byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchError {
    pub at: usize,
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the batch is broken at byte {}", self.at)
    }
}

impl std::error::Error for BatchError {}

/// Everything but body and properties.
const FIXED_BYTES: usize = 4 + 4 + 4 + 4 + 4 + 2;

/// The messages in order. Ends after the first error.
pub fn iter(batch: &[u8]) -> impl Iterator<Item = Result<SubMessage<'_>, BatchError>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == batch.len() {
            return None;
        }
        let parsed = parse(&batch[at..]).ok_or(BatchError { at });
        at = parsed.as_ref().map_or(batch.len(), |(_, len)| at + len);
        Some(parsed.map(|(message, _)| message))
    })
}

/// The first message and its length.
fn parse(bytes: &[u8]) -> Option<(SubMessage<'_>, usize)> {
    let (total, _) = bytes.split_first_chunk()?;
    let total = u32::from_be_bytes(*total) as usize;
    let rest = bytes.get(..total)?.get(12..)?;
    let (flag, rest) = rest.split_first_chunk()?;
    let (body_len, rest) = rest.split_first_chunk()?;
    let (body, rest) = rest.split_at_checked(u32::from_be_bytes(*body_len) as usize)?;
    let (properties_len, properties) = rest.split_first_chunk()?;
    let properties_len = usize::from(u16::from_be_bytes(*properties_len));
    if properties_len > PROPERTIES_BYTES_MAX || properties_len != properties.len() {
        return None;
    }
    Some((
        SubMessage {
            flag: i32::from_be_bytes(*flag),
            body,
            properties,
        },
        total,
    ))
}

/// Appends one message; `properties` must fit a record
/// ([`super::properties::fits`]), the body a frame.
pub fn append(out: &mut Vec<u8>, message: SubMessage<'_>) {
    let SubMessage {
        flag,
        body,
        properties,
    } = message;
    assert!(
        super::properties::fits(properties),
        "the sender checks its properties"
    );
    let total = FIXED_BYTES + body.len() + properties.len();
    out.extend_from_slice(&(total as u32).to_be_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&flag.to_be_bytes());
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(&(properties.len() as u16).to_be_bytes());
    out.extend_from_slice(properties);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Vec<u8> {
        let mut out = Vec::new();
        append(
            &mut out,
            SubMessage {
                flag: -1,
                body: b"one",
                properties: b"a\x01b\x02",
            },
        );
        append(
            &mut out,
            SubMessage {
                flag: 2,
                body: b"",
                properties: b"",
            },
        );
        out
    }

    #[test]
    fn written_and_read() {
        let batch = example();
        assert_eq!(batch[..4], [0, 0, 0, 29]);
        let read: Vec<_> = iter(&batch).collect::<Result<_, _>>().unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(
            read[0],
            SubMessage {
                flag: -1,
                body: b"one",
                properties: b"a\x01b\x02"
            }
        );
        assert_eq!(
            read[1],
            SubMessage {
                flag: 2,
                body: b"",
                properties: b""
            }
        );
    }

    #[test]
    fn truncations_are_refused() {
        let batch = example();
        for len in 1..batch.len() {
            let broken = iter(&batch[..len]).any(|message| message.is_err());
            assert_eq!(broken, len != 29, "{len}");
        }
        assert_eq!(
            iter(&[0; 40]).collect::<Vec<_>>(),
            [Err(BatchError { at: 0 })]
        );
    }

    #[test]
    fn negative_property_length_is_refused() {
        let mut batch = vec![0, 0, 0x80, 22];
        batch.resize(20, 0);
        batch.extend_from_slice(&[0x80, 0]);
        batch.resize(0x8000 + 22, 0);
        assert_eq!(iter(&batch).next(), Some(Err(BatchError { at: 0 })));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            iter(&bytes).for_each(drop);
        }
    }
}
