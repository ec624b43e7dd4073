//! What was learned from things seen lately, most of which look alike.

/// So much is remembered: what one connection sends often, and a little more.
pub const KNOWN_MAX: usize = 4;
/// Of what fits nothing known, one in so many is learned, so that what never repeats costs little.
const LEARN_EVERY: u32 = 16;

/// The forms of the things seen lately.
pub struct Lately<T> {
    /// The more often used one is nearer to the front.
    known: Vec<T>,
    misses: u32,
}

impl<T> Default for Lately<T> {
    fn default() -> Self {
        Lately {
            known: Vec::new(),
            misses: 0,
        }
    }
}

impl<T> Lately<T> {
    /// What the first that can makes of something.
    #[inline]
    pub fn find<R>(&mut self, mut read: impl FnMut(&T) -> Option<R>) -> Option<R> {
        self.find_mut(|known| read(known))
    }

    /// The same for what learns from it.
    #[inline]
    pub fn find_mut<R>(&mut self, mut read: impl FnMut(&mut T) -> Option<R>) -> Option<R> {
        for at in 0..self.known.len() {
            if let Some(found) = read(&mut self.known[at]) {
                if at > 0 {
                    self.known.swap(at - 1, at);
                }
                return Some(found);
            }
        }
        None
    }

    /// None could: one more may be learned.
    #[inline]
    pub fn miss(&mut self, learn: impl FnOnce() -> Option<T>) {
        if self.misses.is_multiple_of(LEARN_EVERY)
            && let Some(learned) = learn()
        {
            self.known.truncate(KNOWN_MAX - 1);
            self.known.push(learned);
        }
        self.misses = self.misses.wrapping_add(1);
    }

    #[cfg(test)]
    pub fn known(&self) -> &[T] {
        &self.known
    }

    #[cfg(test)]
    pub fn learn_next(&mut self) {
        self.misses = 0;
    }
}
