//! Extension fields of a command header: the flat string map that carries every typed header.
//!
//! An index of positions into the header, not a map: filled in one pass by the codec, read in one
//! pass by the typed headers. Order is wire order. Of two fields with one key the later counts, as
//! in the reference's map; [`ExtFields::find`] honours that, and a one-pass reader that overwrites
//! does too. Null values never enter.

use std::ops::Range;

use smallvec::SmallVec;

use super::text::Text;

/// More fields than this end the connection. The largest reference header has 20.
pub const EXT_FIELDS_MAX: usize = 256;

const INLINE_FIELDS: usize = 18;
const ESCAPED: u32 = 1 << 31;

/// Where a string lies in the header, and whether it carries escapes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    at: u32,
    len_and_escaped: u32,
}

impl Span {
    /// Positions inside a header, which is at most 24 bits long.
    #[inline]
    pub(super) fn new(at: usize, len: usize, escaped: bool) -> Self {
        assert!(
            at < ESCAPED as usize && len < ESCAPED as usize,
            "a header has at most 24 bits"
        );
        let flag = if escaped { ESCAPED } else { 0 };
        Self {
            at: at as u32,
            len_and_escaped: len as u32 | flag,
        }
    }

    #[inline]
    pub(super) fn range(self) -> Range<usize> {
        let at = self.at as usize;
        at..at + (self.len_and_escaped & !ESCAPED) as usize
    }

    /// The same string in a header where it lies `by` bytes further on.
    #[inline]
    pub(super) fn moved(self, by: u32) -> Self {
        Self {
            at: self.at.wrapping_add(by),
            ..self
        }
    }

    #[inline]
    pub(super) fn text(self, header: &[u8]) -> Text<'_> {
        let raw = header.get(self.range()).unwrap_or_default();
        Text::checked(raw, self.len_and_escaped & ESCAPED != 0)
    }
}

/// The extension fields of one command, borrowed from its header.
#[derive(Clone, Debug, Default)]
pub struct ExtFields<'a> {
    header: &'a [u8],
    fields: SmallVec<[(Span, Span); INLINE_FIELDS]>,
}

impl<'a> ExtFields<'a> {
    pub(super) fn new(header: &'a [u8]) -> Self {
        Self {
            header,
            fields: SmallVec::new(),
        }
    }

    /// False when there are [`EXT_FIELDS_MAX`] already.
    #[inline]
    #[must_use]
    pub(super) fn push(&mut self, key: Span, value: Span) -> bool {
        if self.fields.len() == EXT_FIELDS_MAX {
            return false;
        }
        self.fields.push((key, value));
        true
    }

    pub(super) fn clear(&mut self) {
        self.fields.clear();
    }

    /// The value of `key`.
    pub fn find(&self, key: &str) -> Option<Text<'a>> {
        let mut backwards = self.fields.iter().rev();
        let (_, value) = backwards.find(|(known, _)| known.text(self.header) == *key)?;
        Some(value.text(self.header))
    }

    /// Keys and values in wire order, repeated keys included.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (Text<'a>, Text<'a>)> + '_ {
        self.fields
            .iter()
            .map(|(key, value)| (key.text(self.header), value.text(self.header)))
    }

    /// What the places are in.
    pub(super) fn header(&self) -> &'a [u8] {
        self.header
    }

    /// Keys and values by their place in the header.
    pub(super) fn spans(&self) -> impl Iterator<Item = (Span, Span)> + '_ {
        self.fields.iter().copied()
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}
