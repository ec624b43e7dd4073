//! Which protocol a new connection speaks, from its first bytes, and the readable refusal of the
//! ones that a listener does not serve.
//!
//! A remoting frame starts with a length below 16 MiB + 1, so its first byte is 0 or 1; no other
//! protocol here starts so. Sources: RFC 8446 (alerts), RFC 9113 (preface, GOAWAY), RFC 9110.

/// What the first bytes say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Remoting,
    Tls,
    Http2,
    Http1,
    Unknown,
}

const HTTP2_PREFACE: &[u8] = b"PRI ";
const HTTP1_METHODS: [&[u8]; 8] = [
    b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN",
];

/// Decides from at most four bytes; `None` while more are needed.
pub fn sniff(start: &[u8]) -> Option<Protocol> {
    match start.first()? {
        0 | 1 => return Some(Protocol::Remoting),
        0x16 => return Some(Protocol::Tls),
        _ => {}
    }
    if let Some(word) = start.first_chunk::<4>() {
        return Some(if word == HTTP2_PREFACE {
            Protocol::Http2
        } else if HTTP1_METHODS.contains(&word.as_slice()) {
            Protocol::Http1
        } else {
            Protocol::Unknown
        });
    }
    let possible = HTTP2_PREFACE.starts_with(start)
        || HTTP1_METHODS.iter().any(|method| method.starts_with(start));
    if possible {
        None
    } else {
        Some(Protocol::Unknown)
    }
}

const EXPLANATION: &str = "this port speaks the RocketMQ remoting protocol";

/// What to send before closing a connection whose protocol is not served here; empty when the
/// protocol has no way to say so.
pub fn refusal(protocol: Protocol) -> Vec<u8> {
    match protocol {
        Protocol::Tls => tls_alert(),
        Protocol::Http2 => http2_goaway(),
        Protocol::Http1 => http1_answer(),
        Protocol::Remoting | Protocol::Unknown => Vec::new(),
    }
}

/// Record: alert (21), TLS 1.2, two bytes: fatal (2), handshake_failure (40).
fn tls_alert() -> Vec<u8> {
    vec![21, 3, 3, 0, 2, 2, 40]
}

fn http2_goaway() -> Vec<u8> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const FRAME_GOAWAY: u8 = 7;
    const PROTOCOL_ERROR: u32 = 1;
    let length = 8 + EXPLANATION.len() as u32;
    let mut out = SETTINGS.to_vec();
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[FRAME_GOAWAY, 0]);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&PROTOCOL_ERROR.to_be_bytes());
    out.extend_from_slice(EXPLANATION.as_bytes());
    out
}

fn http1_answer() -> Vec<u8> {
    let length = EXPLANATION.len() + 1;
    format!(
        "HTTP/1.1 501 Not Implemented\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{EXPLANATION}\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(start: &[u8], expected: Option<Protocol>) {
        assert_eq!(sniff(start), expected, "{start:?}");
    }

    #[test]
    fn first_bytes() {
        check(b"", None);
        check(&[0], Some(Protocol::Remoting));
        check(&[1, 0, 0, 0], Some(Protocol::Remoting));
        check(&[0x16], Some(Protocol::Tls));
        check(b"P", None);
        check(b"PR", None);
        check(b"PRI ", Some(Protocol::Http2));
        check(b"PRI * HTTP/2.0", Some(Protocol::Http2));
        check(b"PRIx", Some(Protocol::Unknown));
        check(b"PUT /", Some(Protocol::Http1));
        check(b"GET", None);
        check(b"GET / HTTP/1.1", Some(Protocol::Http1));
        check(b"HEAD /", Some(Protocol::Http1));
        check(b"OPTIONS *", Some(Protocol::Http1));
        check(b"GETX", Some(Protocol::Unknown));
        check(b"SSH-2.0", Some(Protocol::Unknown));
        check(&[2], Some(Protocol::Unknown));
        check(&[0xFF; 4], Some(Protocol::Unknown));
    }

    #[test]
    fn refusals() {
        assert_eq!(refusal(Protocol::Tls), [21, 3, 3, 0, 2, 2, 40]);
        let http1 = String::from_utf8(refusal(Protocol::Http1)).unwrap();
        assert!(http1.starts_with("HTTP/1.1 501 "));
        assert!(http1.ends_with("\r\n\r\nthis port speaks the RocketMQ remoting protocol\n"));
        let http2 = refusal(Protocol::Http2);
        assert_eq!(http2[..9], [0, 0, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!(http2[9..18], [0, 0, 8 + 47, 7, 0, 0, 0, 0, 0]);
        assert_eq!(http2.len(), 9 + 9 + 8 + 47);
        assert!(refusal(Protocol::Unknown).is_empty());
    }
}
