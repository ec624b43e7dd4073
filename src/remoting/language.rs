//! Implementation language of a peer (`LanguageCode`), a byte in binary headers, a name in JSON.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// What a peer says it is written in. Anything unknown reads as [`Language::Other`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Language {
    #[default]
    Java = 0,
    Cpp = 1,
    DotNet = 2,
    Python = 3,
    Delphi = 4,
    Erlang = 5,
    Ruby = 6,
    Other = 7,
    Http = 8,
    Go = 9,
    Php = 10,
    Oms = 11,
    Rust = 12,
    NodeJs = 13,
}

const ALL: [(Language, &str); 14] = [
    (Language::Java, "JAVA"),
    (Language::Cpp, "CPP"),
    (Language::DotNet, "DOTNET"),
    (Language::Python, "PYTHON"),
    (Language::Delphi, "DELPHI"),
    (Language::Erlang, "ERLANG"),
    (Language::Ruby, "RUBY"),
    (Language::Other, "OTHER"),
    (Language::Http, "HTTP"),
    (Language::Go, "GO"),
    (Language::Php, "PHP"),
    (Language::Oms, "OMS"),
    (Language::Rust, "RUST"),
    (Language::NodeJs, "NODE_JS"),
];

impl Language {
    pub fn from_code(code: u8) -> Self {
        ALL.get(usize::from(code))
            .map_or(Self::Other, |(language, _)| *language)
    }

    /// Reads the enum name; fastjson takes any letter case.
    pub fn from_name(name: &[u8]) -> Self {
        let known = ALL
            .iter()
            .find(|(_, known)| name.eq_ignore_ascii_case(known.as_bytes()));
        known.map_or(Self::Other, |(language, _)| *language)
    }

    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn name(self) -> &'static str {
        ALL[self as usize].1
    }
}

impl Serialize for Language {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Language {
    /// By name or ordinal; anything else is [`Language::Other`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let code = value
            .as_u64()
            .map(|code| u8::try_from(code).unwrap_or(u8::MAX));
        let by_name = || value.as_str().map(|name| Self::from_name(name.as_bytes()));
        Ok(code
            .map(Self::from_code)
            .or_else(by_name)
            .unwrap_or(Self::Other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_agree() {
        for (at, (language, name)) in ALL.iter().enumerate() {
            assert_eq!(language.code() as usize, at);
            assert_eq!(language.name(), *name);
            assert_eq!(Language::from_code(language.code()), *language);
            assert_eq!(Language::from_name(name.as_bytes()), *language);
        }
        assert_eq!(Language::from_code(200), Language::Other);
        assert_eq!(Language::from_name(b"COBOL"), Language::Other);
        assert_eq!(Language::from_name(b"go"), Language::Go);
    }
}
