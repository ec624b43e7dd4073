//! Writes one frame straight into the connection's output buffer.
//!
//! Lengths are unknown while fields are added; [`FrameWriter::finish`] patches them. Nothing is
//! allocated but growth of the buffer. JSON members come in the reference's order, each field value
//! as a string. Keys are names of the protocol: nothing in them needs an escape. A dropped writer
//! leaves a broken frame behind: always finish.

use super::binary;
use super::command::{FLAG_ONEWAY, FLAG_RESPONSE, VERSION};
use super::frame::{Codec, PREFIX_BYTES, set_prefix};
use super::language::Language;
use super::text::{Text, escape};

const EXT_LEN_BYTES: usize = 4;
/// Room made at once for a frame without a body.
const FRAME_BYTES_USUAL: usize = 512;

/// One frame under construction at the end of `out`.
#[must_use = "an unfinished frame has no lengths"]
pub struct FrameWriter<'o> {
    out: &'o mut Vec<u8>,
    /// Where the frame starts in `out`.
    start: usize,
    codec: Codec,
    opaque: i32,
    flag: i32,
    remark: Option<&'o str>,
    /// Binary: where the fields start. JSON: 0 until the first field is written.
    fields_at: usize,
}

impl<'o> FrameWriter<'o> {
    /// Starts the answer to the request with this `opaque`.
    pub fn response(
        out: &'o mut Vec<u8>,
        codec: Codec,
        opaque: i32,
        code: i32,
        remark: Option<&'o str>,
    ) -> Self {
        Self::new(out, codec, opaque, code, FLAG_RESPONSE, remark)
    }

    /// Starts a request. In binary form the code is cut to 16 bits, as the reference does.
    pub fn request(
        out: &'o mut Vec<u8>,
        codec: Codec,
        opaque: i32,
        code: i32,
        oneway: bool,
    ) -> Self {
        Self::new(
            out,
            codec,
            opaque,
            code,
            if oneway { FLAG_ONEWAY } else { 0 },
            None,
        )
    }

    fn new(
        out: &'o mut Vec<u8>,
        codec: Codec,
        opaque: i32,
        code: i32,
        flag: i32,
        remark: Option<&'o str>,
    ) -> Self {
        let start = out.len();
        out.reserve(FRAME_BYTES_USUAL);
        out.extend_from_slice(&[0; PREFIX_BYTES]);
        let mut writer = Self {
            out,
            start,
            codec,
            opaque,
            flag,
            remark,
            fields_at: 0,
        };
        match codec {
            Codec::Json => {
                writer.out.extend_from_slice(b"{\"code\":");
                put_i64(writer.out, i64::from(code));
            }
            Codec::Binary => writer.put_binary_start(code),
        }
        writer
    }

    fn put_binary_start(&mut self, code: i32) {
        let remark = self.remark.unwrap_or_default().as_bytes();
        let out = &mut *self.out;
        out.extend_from_slice(&(code as i16).to_be_bytes());
        out.push(Language::Java.code());
        out.extend_from_slice(&(VERSION as i16).to_be_bytes());
        out.extend_from_slice(&self.opaque.to_be_bytes());
        out.extend_from_slice(&self.flag.to_be_bytes());
        out.extend_from_slice(&(remark.len() as i32).to_be_bytes());
        out.extend_from_slice(remark);
        out.extend_from_slice(&[0; EXT_LEN_BYTES]);
        self.fields_at = out.len();
    }

    /// Adds a field. In binary form an empty value reads as absent at the other end.
    #[inline]
    pub fn field_str(&mut self, key: &str, value: &str) {
        self.field_bytes(key, value.as_bytes());
    }

    /// Adds a field whose value is known to be UTF-8.
    #[inline]
    pub fn field_bytes(&mut self, key: &str, value: &[u8]) {
        match self.codec {
            Codec::Json => {
                self.open_json_field(key);
                escape(value, self.out);
                self.out.push(b'"');
            }
            Codec::Binary => binary::put_field(self.out, key, value),
        }
    }

    /// Adds a field whose value may still be in the wire form of another frame.
    pub fn field_text(&mut self, key: &str, value: Text<'_>) {
        match (value.as_plain_bytes(), self.codec) {
            (Some(plain), _) => self.field_bytes(key, plain),
            (None, Codec::Json) => self.field_str(key, &value.to_cow()),
            (None, Codec::Binary) => binary::put_text_field(self.out, key, value),
        }
    }

    #[inline]
    pub fn field_i64(&mut self, key: &str, value: i64) {
        let mut digits = [0; DIGITS_MAX];
        let digits = decimal(value, &mut digits);
        match self.codec {
            Codec::Json => {
                self.open_json_field(key);
                self.out.extend_from_slice(digits);
                self.out.push(b'"');
            }
            Codec::Binary => binary::put_field(self.out, key, digits),
        }
    }

    pub fn field_bool(&mut self, key: &str, value: bool) {
        self.field_bytes(key, if value { b"true" } else { b"false" });
    }

    /// `,"extFields":{"key":"` or `,"key":"`.
    #[inline]
    fn open_json_field(&mut self, key: &str) {
        if self.fields_at == 0 {
            self.out.extend_from_slice(b",\"extFields\":{\"");
            self.fields_at = self.out.len();
        } else {
            self.out.extend_from_slice(b",\"");
        }
        debug_assert!(
            key.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        );
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":\"");
    }

    /// Ends the header and states the lengths. The caller sends `body_len` bytes of body after it,
    /// in the same buffer or from elsewhere.
    pub fn finish(self, body_len: usize) {
        match self.codec {
            Codec::Json => {
                if self.fields_at != 0 {
                    self.out.push(b'}');
                }
                put_json_end(self.out, self.flag, self.opaque, self.remark);
            }
            Codec::Binary => {
                let ext_len = (self.out.len() - self.fields_at) as u32;
                let at = self.fields_at - EXT_LEN_BYTES;
                self.out[at..at + EXT_LEN_BYTES].copy_from_slice(&ext_len.to_be_bytes());
            }
        }
        let header_len = self.out.len() - self.start - PREFIX_BYTES;
        let frame = &mut self.out[self.start..];
        set_prefix(frame, self.codec, header_len, body_len);
    }

    /// Ends the header and appends the body.
    pub fn finish_with_body(self, body: &[u8]) {
        let Self {
            out,
            start,
            codec,
            opaque,
            flag,
            remark,
            fields_at,
        } = self;
        let writer = FrameWriter {
            out: &mut *out,
            start,
            codec,
            opaque,
            flag,
            remark,
            fields_at,
        };
        writer.finish(body.len());
        out.extend_from_slice(body);
    }
}

fn put_json_end(out: &mut Vec<u8>, flag: i32, opaque: i32, remark: Option<&str>) {
    out.extend_from_slice(b",\"flag\":");
    put_i64(out, i64::from(flag));
    out.extend_from_slice(b",\"language\":\"JAVA\",\"opaque\":");
    put_i64(out, i64::from(opaque));
    if let Some(remark) = remark {
        out.extend_from_slice(b",\"remark\":\"");
        escape(remark.as_bytes(), out);
        out.push(b'"');
    }
    out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":513}");
    const { assert!(VERSION == 513, "the literal above") };
}

/// Of an `i64`, its minus included.
pub(super) const DIGITS_MAX: usize = 20;

fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(decimal(value, &mut [0; DIGITS_MAX]));
}

/// Decimal text of `value`, at the end of `buffer`.
#[inline]
pub(super) fn decimal(value: i64, buffer: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let mut rest = value.unsigned_abs();
    let mut at = DIGITS_MAX;
    while rest >= 100 {
        at -= 2;
        buffer[at..at + 2].copy_from_slice(&DECIMAL_PAIRS[(rest % 100) as usize]);
        rest /= 100;
    }
    let pair = DECIMAL_PAIRS[rest as usize];
    at -= 1;
    buffer[at] = pair[1];
    if rest >= 10 {
        at -= 1;
        buffer[at] = pair[0];
    }
    if value < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    &buffer[at..]
}

pub(super) const DECIMAL_PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + number as u8 / 10, b'0' + number as u8 % 10];
        number += 1;
    }
    pairs
};

#[cfg(test)]
mod tests {
    use super::super::command::Command;
    use super::super::frame::{frame_len, split};
    use super::*;

    fn check_json(write: impl FnOnce(&mut Vec<u8>), header: &str, body: &[u8]) {
        let mut out = b"before".to_vec();
        write(&mut out);
        let whole = &out[6..];
        assert_eq!(frame_len(whole), Ok(Some(whole.len())));
        let frame = split(whole).unwrap();
        assert_eq!(std::str::from_utf8(frame.header), Ok(header));
        assert_eq!(frame.body, body);
    }

    #[test]
    fn json_frames() {
        check_json(
            |out| FrameWriter::response(out, Codec::Json, -7, 0, None).finish(0),
            concat!(
                r#"{"code":0,"flag":1,"language":"JAVA","opaque":-7,"#,
                r#""serializeTypeCurrentRPC":"JSON","version":513}"#
            ),
            b"",
        );
        check_json(
            |out| {
                let mut w = FrameWriter::response(out, Codec::Json, 3, 17, Some("no \"t\"\n"));
                w.field_str("msgId", "A\u{1}é");
                w.field_i64("offset", i64::MIN);
                w.field_bool("changed", true);
                w.field_text("text", Text::checked(br"\u0002b", true));
                w.finish_with_body(b"xyz");
            },
            concat!(
                r#"{"code":17,"extFields":{"msgId":"A\u0001é","offset":"-9223372036854775808","#,
                r#""changed":"true","text":"\u0002b"},"flag":1,"language":"JAVA","opaque":3,"#,
                r#""remark":"no \"t\"\n","serializeTypeCurrentRPC":"JSON","version":513}"#
            ),
            b"xyz",
        );
    }

    #[test]
    fn both_codecs_read_back() {
        for codec in [Codec::Json, Codec::Binary] {
            let mut out = Vec::new();
            let mut writer = FrameWriter::request(&mut out, codec, 9, 200_050, true);
            writer.field_str("topic", "t");
            writer.field_i64("queueId", -1);
            writer.field_text("p", Text::checked(br"k\u0001v", true));
            writer.finish_with_body(b"body");
            let command = Command::decode(split(&out).unwrap()).unwrap();
            assert_eq!(
                (command.code, command.opaque, command.version),
                (200_050, 9, VERSION)
            );
            assert!(command.is_oneway() && !command.is_response());
            assert_eq!(command.ext.find("topic").unwrap(), "t");
            assert_eq!(command.ext.find("queueId").unwrap().parse_i32(), Some(-1));
            assert_eq!(command.ext.find("p").unwrap(), "k\u{1}v");
            assert_eq!(command.body, b"body");
        }
    }

    #[test]
    fn body_may_be_sent_from_elsewhere() {
        let mut out = Vec::new();
        FrameWriter::response(&mut out, Codec::Binary, 1, 0, Some("r")).finish(1000);
        assert_eq!(frame_len(&out), Ok(Some(out.len() + 1000)));
    }

    #[test]
    fn decimals() {
        for value in [
            0,
            1,
            -1,
            9,
            10,
            99,
            100,
            101,
            12_345,
            i64::MAX,
            i64::MIN,
            1_700_000_000_000,
        ] {
            assert_eq!(
                decimal(value, &mut [0; DIGITS_MAX]),
                value.to_string().as_bytes()
            );
        }
    }
}
