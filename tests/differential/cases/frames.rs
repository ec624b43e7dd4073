//! Frames and headers as no client writes them.

use crate::script::{At, Body, Case, case};

const fn frame(name: &'static str, bytes: &'static [u8]) -> Case {
    case(name, 0, "").body(Body::Frame(bytes))
}

const fn header(name: &'static str, code: i32, header: &'static str) -> Case {
    case(name, code, "").body(Body::Header(header))
}

pub const CASES: &[Case] = &[
    frame("length zero", b"\0\0\0\0"),
    frame("length of three", b"\0\0\0\x03abc"),
    frame("length beyond the limit", b"\x01\0\0\x01\0\0\0\0"),
    frame("negative length", b"\xff\xff\xff\xff"),
    frame("header beyond the frame", b"\0\0\0\x06\0\0\0\x09{}"),
    frame("unknown codec", b"\0\0\0\x06\x07\0\0\x02{}"),
    frame("header that is no JSON", b"\0\0\0\x08\0\0\0\x04oops"),
    frame("header that is cut off", b"\0\0\0\x0c\0\0\0\x08{\"code\":"),
    frame(
        "binary header that is cut off",
        b"\0\0\0\x08\x01\0\0\x04\0\x22\0\0",
    ),
    frame("header of an array", b"\0\0\0\x06\0\0\0\x02[]"),
    frame("empty header", b"\0\0\0\x04\0\0\0\0"),
    frame("text of another protocol", b"GET / HTTP/1.1\r\n\r\n").at(At::Other),
    header(
        "header with numbers for texts",
        30,
        r#"{"code":30,"flag":0,"opaque":1,"extFields":{"topic":"Plain","queueId":0}}"#,
    ),
    header(
        "header with a flag for a text",
        30,
        r#"{"code":30,"opaque":1,"extFields":{"topic":"Plain","queueId":0,"committed":true}}"#,
    ),
    header(
        "header with strange members",
        30,
        r#"{"code":30,"opaque":1,"x":{"y":[1,null]},"extFields":{"topic":"Plain","queueId":"0"}}"#,
    ),
    header(
        "header with nothing for texts",
        30,
        r#"{"code":30,"opaque":1,"remark":null,"extFields":{"topic":"Plain","queueId":null}}"#,
    ),
    header(
        "header without fields",
        30,
        r#"{"code":30,"opaque":1,"extFields":null}"#,
    ),
    header(
        "header of a strange language",
        30,
        r#"{"code":30,"opaque":1,"language":"COBOL","extFields":{"topic":"Plain","queueId":"0"}}"#,
    ),
    header(
        "header with a number for a language",
        30,
        r#"{"code":30,"opaque":1,"language":3,"extFields":{"topic":"Plain","queueId":"0"}}"#,
    ),
    header(
        "header with a text for a code",
        30,
        r#"{"code":"30","opaque":"1","extFields":{"topic":"Plain","queueId":"0"}}"#,
    ),
    header(
        "header with a comma too many",
        30,
        r#"{"code":30,"opaque":1,"extFields":{"topic":"Plain","queueId":"0",},}"#,
    ),
    header(
        "header with single quotes",
        30,
        "{'code':30,'opaque':1,'extFields':{'topic':'Plain','queueId':'0'}}",
    ),
    header("header without a code", 0, r#"{"opaque":1}"#),
    header("header without an opaque", 9999, r#"{"code":9999}"#),
    header(
        "header with blanks",
        9999,
        "  {  \"code\" : 9999 , \"opaque\" : 1 }  ",
    ),
    header(
        "header with text after it",
        9999,
        r#"{"code":9999,"opaque":1}x"#,
    ),
    header("header of nothing", 0, "{}"),
    header(
        "header with a member twice",
        30,
        r#"{"code":9999,"code":30,"opaque":1,"extFields":{"topic":"Plain","queueId":"0"}}"#,
    ),
    header(
        "header with escapes",
        30,
        r#"{"code":30,"opaque":1,"extFields":{"topic":"\u0050lain","queueId":"\u0030"}}"#,
    ),
    header(
        "header with a list for a text",
        30,
        r#"{"code":30,"opaque":1,"extFields":{"topic":"Plain","queueId":[0]}}"#,
    ),
];
