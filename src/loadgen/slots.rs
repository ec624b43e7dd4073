//! Requests in flight on one connection: each has a slot, and its opaque names the slot and how
//! often it was used.
//!
//! What always holds: a slot is free or in flight, and an answer to anything else is found out. All
//! opaques have ten digits, so that they can be written into a request at a fixed place.

/// Requests in flight on one connection.
pub const IN_FLIGHT_MAX: usize = 1 << 18;
/// The first number of ten digits; those used stay below 1_300_000_000.
const FIRST_OPAQUE: u32 = 1_000_000_000;
/// Times a slot is used before its opaques come again.
const USES: u32 = 1 << 10;
const _: () =
    assert!(FIRST_OPAQUE as u64 + (IN_FLIGHT_MAX as u64) * (USES as u64) < i32::MAX as u64);

#[derive(Clone, Copy, Debug)]
struct Slot<T> {
    uses: u32,
    /// What is in flight.
    about: Option<T>,
}

/// Each request in flight is about a `T`.
#[derive(Clone, Debug)]
pub struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T: Copy> Slots<T> {
    pub fn new(count: usize) -> Self {
        let count = count.clamp(1, IN_FLIGHT_MAX);
        Slots {
            slots: vec![
                Slot {
                    uses: 0,
                    about: None
                };
                count
            ],
            free: (0..count as u32).rev().collect(),
        }
    }

    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a slot and gives its opaque. The caller looked for room.
    pub fn take(&mut self, about: T) -> u32 {
        let at = self.free.pop().expect("the caller looked for room");
        let slot = &mut self.slots[at as usize];
        slot.about = Some(about);
        slot.uses = (slot.uses + 1) % USES;
        FIRST_OPAQUE + slot.uses * self.slots.len() as u32 + at
    }

    /// Changes what a request in flight is about.
    pub fn change(&mut self, opaque: u32, change: impl FnOnce(&mut T)) {
        let at = (opaque - FIRST_OPAQUE) as usize % self.slots.len();
        if let Some(about) = &mut self.slots[at].about {
            change(about);
        }
    }

    /// Frees the slot of an answered request.
    ///
    /// # Errors
    /// A sentence: nothing with this opaque is in flight.
    pub fn release(&mut self, opaque: i32) -> Result<T, String> {
        let unknown = || format!("an answer came to no request in flight, opaque {opaque}");
        let number = u32::try_from(opaque)
            .ok()
            .and_then(|n| n.checked_sub(FIRST_OPAQUE));
        let number = number.ok_or_else(unknown)?;
        let count = self.slots.len() as u32;
        let (uses, at) = (number / count, number % count);
        let slot = &mut self.slots[at as usize];
        if slot.uses != uses {
            return Err(unknown());
        }
        let about = slot.about.take().ok_or_else(unknown)?;
        self.free.push(at);
        Ok(about)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_find_their_request_once() {
        let mut slots = Slots::new(2);
        let (a, b) = (slots.take('a') as i32, slots.take('b') as i32);
        assert!(!slots.has_room() && slots.in_flight() == 2);
        assert_eq!(slots.release(b), Ok('b'));
        assert!(
            slots
                .release(b)
                .unwrap_err()
                .contains("no request in flight")
        );
        let again = slots.take('c') as i32;
        assert_ne!(again, b, "a late second answer is told apart");
        assert!(slots.release(b).is_err());
        assert_eq!((slots.release(again), slots.release(a)), (Ok('c'), Ok('a')));
        for nonsense in [0, -1, i32::MAX, FIRST_OPAQUE as i32] {
            assert!(slots.release(nonsense).is_err());
        }
    }

    #[test]
    fn opaques_have_ten_digits_for_ever() {
        let mut slots = Slots::new(3);
        for _ in 0..10_000 {
            let opaque = slots.take(()) as i32;
            assert_eq!(opaque.to_string().len(), 10);
            slots.release(opaque).unwrap();
        }
    }
}
