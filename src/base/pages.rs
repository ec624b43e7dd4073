//! A table by number, for numbers that mostly follow each other, such as offsets of a queue.
//!
//! Entries lie in pages of 64 numbers, and a page holds a bit for each and the values it has. So a
//! million neighbours take little more than their values; a B-tree holds each number beside its
//! value, and leaves its nodes half empty when they come in ascending order.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Numbers of a page: one for each bit of [`Page::present`].
pub const PAGE_NUMBERS: u64 = 64;
/// Values a page has room for at least.
const ROOM_MIN: usize = 4;

pub struct Pages<V> {
    pages: BTreeMap<u64, Page<V>>,
    count: usize,
}

struct Page<V> {
    /// Bit n: there is a value for the page's n-th number.
    present: u64,
    /// In the order of their numbers.
    values: Vec<V>,
}

impl<V> Default for Pages<V> {
    fn default() -> Self {
        Pages {
            pages: BTreeMap::new(),
            count: 0,
        }
    }
}

/// The page of a number, and its bit there.
fn place(number: u64) -> (u64, u64) {
    (number / PAGE_NUMBERS, 1 << (number % PAGE_NUMBERS))
}

impl<V> Page<V> {
    /// Where the value of a bit is, or would be.
    fn rank(&self, bit: u64) -> usize {
        (self.present & (bit - 1)).count_ones() as usize
    }

    fn find(&self, bit: u64) -> Option<usize> {
        (self.present & bit != 0).then(|| self.rank(bit))
    }

    fn entries(&self, page: u64) -> impl Iterator<Item = (u64, &V)> {
        let mut left = self.present;
        self.values.iter().map(move |value| {
            let number = page * PAGE_NUMBERS + u64::from(left.trailing_zeros());
            left &= left - 1;
            (number, value)
        })
    }
}

impl<V> Pages<V> {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn get(&self, number: u64) -> Option<&V> {
        let (page, bit) = place(number);
        let page = self.pages.get(&page)?;
        page.find(bit).map(|at| &page.values[at])
    }

    pub fn value_mut(&mut self, number: u64) -> Option<&mut V> {
        let (page, bit) = place(number);
        let page = self.pages.get_mut(&page)?;
        page.find(bit).map(|at| &mut page.values[at])
    }

    /// Gives what was there before.
    pub fn insert(&mut self, number: u64, value: V) -> Option<V> {
        let (page, bit) = place(number);
        let page = self.pages.entry(page).or_insert(Page {
            present: 0,
            values: Vec::new(),
        });
        if let Some(at) = page.find(bit) {
            return Some(std::mem::replace(&mut page.values[at], value));
        }
        page.values.insert(page.rank(bit), value);
        page.present |= bit;
        self.count += 1;
        None
    }

    pub fn remove(&mut self, number: u64) -> Option<V> {
        let (key, bit) = place(number);
        let page = self.pages.get_mut(&key)?;
        let value = page.values.remove(page.find(bit)?);
        page.present &= !bit;
        self.count -= 1;
        let (len, room) = (page.values.len(), page.values.capacity());
        if len == 0 {
            self.pages.remove(&key);
        } else if room > ROOM_MIN && room >= 4 * len {
            page.values.shrink_to((2 * len).max(ROOM_MIN));
        }
        Some(value)
    }

    /// Ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        self.pages
            .iter()
            .flat_map(|(page, held)| held.entries(*page))
    }

    /// Ascending.
    pub fn range(&self, numbers: RangeInclusive<u64>) -> impl Iterator<Item = (u64, &V)> {
        let pages = place(*numbers.start()).0..=place(*numbers.end()).0;
        let pages = self.pages.range(pages);
        let entries = pages.flat_map(|(page, held)| held.entries(*page));
        entries.filter(move |(number, _)| numbers.contains(number))
    }

    /// Whether there is anything in a page.
    pub fn has_page(&self, page: u64) -> bool {
        self.pages.contains_key(&page)
    }

    /// What lies in a page, to be changed.
    pub fn page_mut(&mut self, page: u64) -> impl Iterator<Item = (u64, &mut V)> {
        let held = self.pages.get_mut(&page).into_iter();
        held.flat_map(move |held| {
            let mut left = held.present;
            held.values.iter_mut().map(move |value| {
                let number = page * PAGE_NUMBERS + u64::from(left.trailing_zeros());
                left &= left - 1;
                (number, value)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_map(
            ops in prop::collection::vec((0..4u8, 0..200u64, any::<u32>()), 1..400)
        ) {
            let (mut pages, mut model) = (Pages::default(), BTreeMap::new());
            for (what, number, value) in ops {
                match what {
                    0 | 1 => prop_assert_eq!(
                        pages.insert(number, value),
                        model.insert(number, value)
                    ),
                    2 => prop_assert_eq!(pages.remove(number), model.remove(&number)),
                    _ => {
                        prop_assert_eq!(pages.get(number), model.get(&number));
                        prop_assert_eq!(pages.value_mut(number), model.get_mut(&number));
                        let range = number..=number + u64::from(value % 100);
                        let both = model.range(range.clone()).map(|(n, v)| (*n, v));
                        prop_assert!(pages.range(range).eq(both));
                        let page = number / PAGE_NUMBERS;
                        let numbers = page * PAGE_NUMBERS..(page + 1) * PAGE_NUMBERS;
                        let any = model.range(numbers.clone()).next().is_some();
                        prop_assert_eq!(pages.has_page(page), any);
                        let both = model.range_mut(numbers).map(|(n, v)| (*n, v));
                        prop_assert!(pages.page_mut(page).eq(both));
                    }
                }
                prop_assert_eq!((pages.len(), pages.is_empty()), (model.len(), model.is_empty()));
                prop_assert!(pages.iter().eq(model.iter().map(|(n, v)| (*n, v))));
            }
        }
    }

    #[test]
    fn what_is_left_of_a_page_takes_no_more_than_it_needs() {
        let mut pages = Pages::default();
        for number in 0..640u64 {
            pages.insert(number, number);
        }
        for number in (0..640).filter(|number| number % 64 != 7) {
            pages.remove(number);
        }
        let room: usize = pages
            .pages
            .values()
            .map(|page| page.values.capacity())
            .sum();
        assert!(room <= 10 * ROOM_MIN, "{room}");
        for number in 0..640 {
            pages.remove(number);
        }
        assert!(pages.is_empty() && pages.pages.is_empty());
    }

    /// The last number of all has a page, too.
    #[test]
    fn the_ends_of_the_numbers_are_numbers() {
        let mut pages = Pages::default();
        pages.insert(u64::MAX, 1);
        pages.insert(0, 2);
        assert!(pages.range(1..=u64::MAX).eq([(u64::MAX, &1)]));
        assert_eq!(pages.remove(0), Some(2));
        assert_eq!(pages.get(u64::MAX), Some(&1));
    }
}
