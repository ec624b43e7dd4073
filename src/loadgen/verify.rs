//! What was acknowledged and what came, compared: `--verify`.
//!
//! A *stream* is what one producer sends to one queue, numbered from 0 without a gap. Each stream
//! has two bits per message, acknowledged and received, kept for the whole run: a hundred million
//! messages take 25 MB. Over [`MESSAGES_MAX`] or [`STREAMS_MAX`] the run is refused or ends with a
//! sentence.
//!
//! A message may be received without an acknowledgement: the broker stored it and the answer was
//! lost. All else that does not match is counted.

use super::body::checked_stamp;
use super::outcome::Verified;

/// Messages of one stream that are told apart: 2^30, 256 MB for both bits.
pub const MESSAGES_MAX: u64 = 1 << 30;
/// Producers times queues.
pub const STREAMS_MAX: usize = 1 << 20;

/// One bit per message, grown as needed.
#[derive(Clone, Default, Debug)]
struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// Sets a bit; true if it was set already.
    fn set(&mut self, at: u64) -> bool {
        let (word, bit) = ((at / 64) as usize, 1 << (at % 64));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let before = self.words[word] & bit != 0;
        self.words[word] |= bit;
        before
    }

    fn word(&self, at: usize) -> u64 {
        self.words.get(at).copied().unwrap_or(0)
    }
}

#[derive(Clone, Default, Debug)]
struct Stream {
    acknowledged: Bits,
    received: Bits,
    /// The highest sequence that came.
    highest: Option<u64>,
}

/// The counts of one thread, or of all.
#[derive(Clone, Debug)]
pub struct Ledger {
    run: u32,
    producers: u32,
    queues: u32,
    streams: Vec<Stream>,
    messages: u64,
    received: u64,
    duplicated: u64,
    reordered: u64,
    corrupt: u64,
}

impl Ledger {
    /// # Errors
    /// A sentence: more streams than [`STREAMS_MAX`].
    pub fn new(run: u32, producers: usize, queues: usize) -> Result<Self, String> {
        let streams = producers.saturating_mul(queues);
        if streams > STREAMS_MAX {
            return Err(format!(
                "--verify follows at most {STREAMS_MAX} pairs of producer and queue, and \
                 {producers} connections to {queues} queues make {streams}: use fewer of either"
            ));
        }
        Ok(Ledger {
            run,
            producers: producers as u32,
            queues: queues as u32,
            streams: vec![Stream::default(); streams],
            messages: 0,
            received: 0,
            duplicated: 0,
            reordered: 0,
            corrupt: 0,
        })
    }

    /// The broker said that it stored this message.
    ///
    /// # Errors
    /// A sentence: more messages than [`MESSAGES_MAX`].
    pub fn acknowledge(&mut self, producer: u32, queue: u32, sequence: u64) -> Result<(), String> {
        self.messages += 1;
        if self.messages > MESSAGES_MAX {
            return Err(format!(
                "--verify keeps two bits for each of at most {MESSAGES_MAX} messages, which are \
                 reached: make the run shorter"
            ));
        }
        if let Some(stream) = self.stream(producer, queue) {
            stream.acknowledged.set(sequence);
        }
        Ok(())
    }

    /// A message came out of the queue with this index. Messages of other runs are passed over.
    pub fn receive(&mut self, queue: u32, body: &[u8]) {
        let Some(stamp) = checked_stamp(body) else {
            self.corrupt += 1;
            return;
        };
        if stamp.run != self.run {
            return;
        }
        self.received += 1;
        let known = stamp.queue == queue && stamp.sequence < MESSAGES_MAX;
        let Some(stream) = self.stream(stamp.producer, stamp.queue).filter(|_| known) else {
            self.corrupt += 1;
            return;
        };
        let late = stream
            .highest
            .is_some_and(|highest| stamp.sequence < highest);
        let twice = stream.received.set(stamp.sequence);
        stream.highest = stream.highest.max(Some(stamp.sequence));
        self.duplicated += u64::from(twice);
        self.reordered += u64::from(late && !twice);
    }

    fn stream(&mut self, producer: u32, queue: u32) -> Option<&mut Stream> {
        if producer >= self.producers || queue >= self.queues {
            return None;
        }
        let at = producer as usize * self.queues as usize + queue as usize;
        self.streams.get_mut(at)
    }

    /// Adds what another thread saw. What both received came twice. Order is looked at by each
    /// thread for itself, so a queue has one reader at a time.
    pub fn merge(&mut self, other: &Ledger) {
        self.messages += other.messages;
        self.received += other.received;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupt += other.corrupt;
        for (mine, theirs) in self.streams.iter_mut().zip(&other.streams) {
            merge_bits(&mut mine.acknowledged, &theirs.acknowledged);
            self.duplicated += merge_bits(&mut mine.received, &theirs.received);
            mine.highest = mine.highest.max(theirs.highest);
        }
    }

    pub fn verdict(&self, reorder_allowed: bool) -> Verified {
        let mut verified = Verified {
            received: self.received,
            duplicated: self.duplicated,
            reordered: self.reordered,
            corrupt: self.corrupt,
            reorder_allowed,
            ..Verified::default()
        };
        for stream in &self.streams {
            let (acknowledged, received) = (&stream.acknowledged, &stream.received);
            for at in 0..acknowledged.words.len().max(received.words.len()) {
                let (asked, came) = (acknowledged.word(at), received.word(at));
                verified.acknowledged += u64::from(asked.count_ones());
                verified.lost += u64::from((asked & !came).count_ones());
                verified.unacknowledged += u64::from((came & !asked).count_ones());
            }
        }
        verified
    }
}

/// Adds bits; gives how many were set in both.
fn merge_bits(into: &mut Bits, from: &Bits) -> u64 {
    if into.words.len() < from.words.len() {
        into.words.resize(from.words.len(), 0);
    }
    let mut both = 0;
    for (mine, theirs) in into.words.iter_mut().zip(&from.words) {
        both += u64::from((*mine & theirs).count_ones());
        *mine |= theirs;
    }
    both
}

/// What is wrong with a verified run, as a sentence. Brokers that handle the sends of one
/// connection on several threads, as Java's does, may swap requests in flight together; whoever
/// knows that allows it.
pub fn complaint(verified: &Verified) -> Option<String> {
    let Verified {
        lost,
        duplicated,
        reordered,
        corrupt,
        ..
    } = *verified;
    let order = if verified.reorder_allowed {
        0
    } else {
        reordered
    };
    (lost + duplicated + order + corrupt > 0).then(|| {
        format!(
            "the broker broke its word: {lost} acknowledged messages lost, {duplicated} \
             duplicated, {reordered} out of order, {corrupt} corrupt{}",
            if order > 0 {
                "; brokers with several send threads swap requests that are in flight together: \
                 ask again with --in-flight 1, or pass --allow-reorder"
            } else {
                ""
            }
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::body::{Stamp, filler, put_stamp};
    use super::*;

    const RUN: u32 = 9;

    fn body(producer: u32, queue: u32, sequence: u64) -> Vec<u8> {
        let mut body = filler(64, 1);
        put_stamp(
            &mut body,
            Stamp {
                run: RUN,
                producer,
                queue,
                sequence,
                due: 0,
            },
        );
        body
    }

    /// Two producers send 100 messages to each of two queues; `harm` changes what comes of the
    /// first queue. Gives lost, duplicated, reordered, corrupt.
    fn check(harm: impl FnOnce(&mut Vec<Vec<u8>>), expected: [u64; 4]) {
        let mut ledger = Ledger::new(RUN, 2, 2).unwrap();
        let mut queues = [Vec::new(), Vec::new()];
        for sequence in 0..100 {
            for (producer, queue) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                ledger.acknowledge(producer, queue, sequence).unwrap();
                queues[queue as usize].push(body(producer, queue, sequence));
            }
        }
        harm(&mut queues[0]);
        for (queue, bodies) in queues.iter().enumerate() {
            bodies
                .iter()
                .for_each(|body| ledger.receive(queue as u32, body));
        }
        let seen = ledger.verdict(false);
        assert_eq!(seen.acknowledged, 400);
        let wrong = [seen.lost, seen.duplicated, seen.reordered, seen.corrupt];
        assert_eq!(wrong, expected);
        assert_eq!(complaint(&seen).is_some(), expected != [0; 4]);
    }

    #[test]
    fn a_sound_run_is_sound() {
        check(|_| {}, [0; 4]);
    }

    #[test]
    fn producers_may_interleave_in_any_way() {
        check(|bodies| bodies.sort_by_key(|body| body[11]), [0; 4]);
    }

    #[test]
    fn a_dropped_message_is_caught() {
        check(|bodies| drop(bodies.remove(50)), [1, 0, 0, 0]);
        check(|bodies| drop(bodies.pop()), [1, 0, 0, 0]);
    }

    #[test]
    fn a_duplicated_message_is_caught() {
        check(|bodies| bodies.insert(51, bodies[50].clone()), [0, 1, 0, 0]);
        check(|bodies| bodies.push(bodies[0].clone()), [0, 1, 0, 0]);
    }

    #[test]
    fn a_reordered_message_is_caught() {
        check(|bodies| bodies.swap(50, 52), [0, 0, 1, 0]);
    }

    #[test]
    fn a_corrupted_message_is_caught() {
        // What it was is not known any more, so the message it was is lost too.
        check(|bodies| bodies[50][60] ^= 1, [1, 0, 0, 1]);
        check(|bodies| bodies[50].truncate(63), [1, 0, 0, 1]);
    }

    #[test]
    fn a_message_in_the_wrong_queue_is_caught() {
        check(|bodies| bodies[50] = body(0, 1, 25), [1, 0, 0, 1]);
    }

    #[test]
    fn strangers_and_unacknowledged_messages_are_no_fault() {
        let mut ledger = Ledger::new(RUN, 1, 1).unwrap();
        let mut stranger = filler(64, 1);
        put_stamp(
            &mut stranger,
            Stamp {
                run: 1,
                producer: 5,
                queue: 5,
                sequence: 0,
                due: 0,
            },
        );
        ledger.receive(0, &stranger);
        ledger.receive(0, &body(0, 0, 0));
        let seen = ledger.verdict(false);
        assert_eq!(
            (seen.received, seen.unacknowledged, seen.corrupt),
            (1, 1, 0)
        );
        assert_eq!(complaint(&seen), None);
    }

    #[test]
    fn threads_see_parts_of_the_whole() {
        let mut sender = Ledger::new(RUN, 1, 2).unwrap();
        let (mut left, mut right) = (sender.clone(), sender.clone());
        for sequence in 0..200 {
            sender
                .acknowledge(0, (sequence % 2) as u32, sequence / 2)
                .unwrap();
        }
        (0..100).for_each(|sequence| left.receive(0, &body(0, 0, sequence)));
        (0..100).for_each(|sequence| right.receive(1, &body(0, 1, sequence)));
        sender.merge(&left);
        sender.merge(&right);
        assert_eq!(complaint(&sender.verdict(false)), None);
        sender.merge(&right);
        assert_eq!(sender.verdict(false).duplicated, 100);
    }

    #[test]
    fn limits_are_sentences() {
        let refused = Ledger::new(RUN, 1 << 11, 1 << 10).unwrap_err();
        assert!(refused.contains("use fewer"), "{refused}");
        let mut ledger = Ledger::new(RUN, 1, 1).unwrap();
        ledger.messages = MESSAGES_MAX;
        assert!(ledger.acknowledge(0, 0, 1).unwrap_err().contains("shorter"));
        ledger.receive(0, &body(0, 0, MESSAGES_MAX));
        ledger.receive(0, &body(1, 0, 0));
        assert_eq!(ledger.verdict(false).corrupt, 2);
    }
}
