//! Queries for single messages: by key, unique key or id, and for where a queue stood at a time.
//!
//! What can be asked for is learned before the load begins, by pulling single messages from places
//! drawn by chance. Each is asked for in turn. An answer without it ends the run.

use std::sync::Arc;

use super::answer::decode;
use super::desk::Desk;
use super::find::{Field, Target};
use super::link::Link;
use super::pace::Chance;
use super::plan::By;
use super::slots::Slots;
use super::tally::named;
use crate::message::view::RecordView;
use crate::message::{names, properties};
use crate::remoting::code::{request, response};
use crate::remoting::command::{Command, FrameWriter};
use crate::remoting::frame::Codec;
use crate::remoting::header::offset::{OffsetResponse, SearchOffset};
use crate::remoting::header::pull::PullHeader;
use crate::remoting::header::query::{QueryMessage, UNIQUE_KEY_QUERY, ViewMessage};
use crate::remoting::text::Text;

/// Messages one query may bring.
const MESSAGES_MAX: i32 = 32;

/// A message that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sample {
    topic: Arc<str>,
    queue: i32,
    offset: i64,
    physical: i64,
    store_ms: i64,
    /// What a query by key or unique key names.
    key: String,
}

/// Draws messages of a broker; `ranges` are first and next offsets, by the queue's number.
///
/// # Errors
/// A sentence: there are none, or they have no keys.
pub fn draw(
    link: &mut Link,
    field: &Field,
    targets: &[Target],
    ranges: &[(i64, i64)],
    by: By,
    (count, seed): (usize, u64),
) -> Result<Arc<[Sample]>, String> {
    let range = |target: &Target| ranges[target.index as usize];
    let filled = targets.iter().filter(|target| {
        let (first, next) = range(target);
        target.readable && first < next
    });
    let filled: Vec<&Target> = filled.collect();
    if filled.is_empty() {
        return Err("nothing is there to be asked for: send to the topic first".to_owned());
    }
    let mut chance = Chance::new(seed);
    let mut drawn = Vec::with_capacity(count);
    for _ in 0..count {
        let target = filled[(chance.next() % filled.len() as u64) as usize];
        let (first, next) = range(target);
        let offset = first + (chance.next() % (next - first) as u64) as i64;
        let topic = &field.topics[target.topic as usize];
        drawn.push(pull(link, topic, target.id, offset, by)?);
    }
    Ok(drawn.into())
}

/// One message, as a puller gets it.
fn pull(
    link: &mut Link,
    topic: &Arc<str>,
    queue: i32,
    offset: i64,
    by: By,
) -> Result<Sample, String> {
    let (codec, code) = (link.codec, request::PULL_MESSAGE);
    let mut writer = FrameWriter::request(&mut link.out, codec, 1, code, false);
    PullHeader {
        consumer_group: Text::plain("orbitmq_bench"),
        topic: Text::plain(topic),
        queue_id: queue,
        queue_offset: offset,
        max_msg_nums: 1,
        sys_flag: crate::remoting::header::pull::FLAG_SUBSCRIPTION,
        commit_offset: 0,
        suspend_timeout_ms: 0,
        subscription: Some(Text::plain("*")),
        sub_version: 0,
        expression_type: Some(Text::plain("TAG")),
        max_msg_bytes: None,
        request_source: None,
        proxy_forward_client_id: None,
        lite_topic: None,
    }
    .encode(&mut writer);
    writer.finish(0);
    let answer = link.call()?;
    let place = format!("{topic} queue {queue} offset {offset}");
    if answer.code != response::SUCCESS {
        let remark = answer.remark.map_or_else(String::new, |r| r.to_string());
        return Err(format!(
            "a pull of {place} was refused with {}: {remark}",
            named(answer.code)
        ));
    }
    let record = RecordView::iter(answer.body).next();
    let record = record.ok_or_else(|| format!("a pull of {place} brought nothing"))?;
    let record = record.map_err(|error| format!("{place} is no record: {error}"))?;
    let find = |name| properties::find_str(record.properties(), name);
    let key = match by {
        By::Key => find(names::KEYS).and_then(|keys| keys.split(' ').next()),
        By::UniqueKey => find(names::UNIQUE_KEY),
        By::Id | By::Time => Some(""),
    };
    let key = key.ok_or_else(|| format!("{place} has no key: send with --keys"))?;
    Ok(Sample {
        topic: topic.clone(),
        queue,
        offset,
        physical: record.physical_offset(),
        store_ms: record.store_timestamp(),
        key: key.to_owned(),
    })
}

/// One connection that asks.
pub struct Asker {
    by: By,
    codec: Codec,
    samples: Arc<[Sample]>,
    next: usize,
    /// About a sample, due at a moment.
    slots: Slots<(u32, u64)>,
}

impl Asker {
    /// `number` tells those apart that share the samples.
    pub fn new(
        by: By,
        codec: Codec,
        samples: Arc<[Sample]>,
        (number, of): (usize, usize),
        in_flight: usize,
    ) -> Self {
        Asker {
            by,
            codec,
            next: number * samples.len() / of.max(1),
            samples,
            slots: Slots::new(in_flight),
        }
    }

    pub fn has_room(&self) -> bool {
        self.slots.has_room()
    }

    pub fn in_flight(&self) -> usize {
        self.slots.in_flight()
    }

    /// Appends the next query, which was due at this moment.
    pub fn ask(&mut self, due: u64, out: &mut Vec<u8>) {
        let at = self.next % self.samples.len();
        self.next = at + 1;
        let opaque = self.slots.take((at as u32, due)) as i32;
        let (sample, codec) = (&self.samples[at], self.codec);
        let code = match self.by {
            By::Key | By::UniqueKey => request::QUERY_MESSAGE,
            By::Id => request::VIEW_MESSAGE_BY_ID,
            By::Time => request::SEARCH_OFFSET_BY_TIMESTAMP,
        };
        let mut writer = FrameWriter::request(out, codec, opaque, code, false);
        match self.by {
            By::Key | By::UniqueKey => {
                QueryMessage {
                    topic: (&*sample.topic).into(),
                    key: sample.key.as_str().into(),
                    max_num: MESSAGES_MAX,
                    begin_timestamp: 0,
                    end_timestamp: i64::MAX,
                    index_type: None,
                }
                .encode(&mut writer);
                if self.by == By::UniqueKey {
                    writer.field_str(UNIQUE_KEY_QUERY, "true");
                }
            }
            By::Id => ViewMessage {
                topic: Some((&*sample.topic).into()),
                offset: sample.physical,
            }
            .encode(&mut writer),
            By::Time => SearchOffset {
                topic: (&*sample.topic).into(),
                queue_id: sample.queue,
                timestamp: sample.store_ms,
                boundary_type: None,
                lite_topic: None,
            }
            .encode(&mut writer),
        }
        writer.finish(0);
    }

    /// # Errors
    /// A sentence: the answer cannot be read, or lacks what is there.
    pub fn answer(&mut self, frame: &[u8], desk: &mut Desk) -> Result<(), String> {
        let command = decode(frame)?;
        if !command.is_response() {
            return Ok(());
        }
        let (at, due) = self.slots.release(command.opaque)?;
        let sample = &self.samples[at as usize];
        let count = &mut desk.counts[0];
        if command.code != response::SUCCESS {
            count.refused(command.code, command.remark.map(|text| text.to_string()));
            return Ok(());
        }
        if !self.is_found(sample, &command)? {
            return Err(format!(
                "an answer lacks what is there: topic {}, queue {}, offset {}, {}",
                sample.topic, sample.queue, sample.offset, sample.key
            ));
        }
        let counts = desk.moments.counts(due);
        count.done(desk.moments, desk.now, counts, 1, command.body.len() as u64);
        count.took(counts, desk.now.saturating_sub(due), 1);
        Ok(())
    }

    fn is_found(&self, sample: &Sample, answer: &Command<'_>) -> Result<bool, String> {
        if self.by == By::Time {
            // Others may have been stored in the same millisecond before it.
            let header = OffsetResponse::decode(&answer.ext).map_err(|e| e.to_string())?;
            return Ok((0..=sample.offset).contains(&header.offset));
        }
        for record in RecordView::iter(answer.body) {
            let record = record.map_err(|error| format!("an answer is no record: {error}"))?;
            if record.physical_offset() == sample.physical {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::encode::{Draft, Placed, encode};

    fn sample(physical: i64) -> Sample {
        Sample {
            topic: "T".into(),
            queue: 1,
            offset: 7,
            physical,
            store_ms: 5,
            key: "k".to_owned(),
        }
    }

    fn record(physical_offset: i64) -> Vec<u8> {
        let host = "127.0.0.1:1".parse().unwrap();
        let draft = Draft {
            topic: "T",
            queue_id: 1,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 0,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: b"body",
            properties: b"",
        };
        let placed = Placed {
            queue_offset: 7,
            physical_offset,
            store_timestamp: 5,
        };
        let mut out = Vec::new();
        encode(&draft, placed, &mut out);
        out
    }

    /// Whether an answer to the one query there is has what was asked for.
    fn check(by: By, offset: i64, body: &[u8], expected: bool) {
        let samples = Arc::from([sample(4096)]);
        let mut asker = Asker::new(by, Codec::Json, samples, (0, 1), 1);
        let mut asked = Vec::new();
        asker.ask(1, &mut asked);
        assert!(!asker.has_room() && asker.in_flight() == 1);
        let mut frame = Vec::new();
        let opaque = decode(&asked).unwrap().opaque;
        let code = response::SUCCESS;
        let mut writer = FrameWriter::response(&mut frame, Codec::Json, opaque, code, None);
        OffsetResponse { offset }.encode(&mut writer);
        writer.finish_with_body(body);
        let found = asker.is_found(&asker.samples[0], &decode(&frame).unwrap());
        assert_eq!(found, Ok(expected), "{by:?}");
    }

    #[test]
    fn an_answer_has_what_is_there() {
        let (ours, other) = (record(4096), record(8192));
        for by in [By::Key, By::UniqueKey, By::Id] {
            check(by, 0, &[other.as_slice(), &ours].concat(), true);
            check(by, 0, &other, false);
            check(by, 0, b"", false);
        }
        check(By::Time, 7, b"", true);
        check(By::Time, 5, b"", true);
        check(By::Time, 8, b"", false);
        check(By::Time, -1, b"", false);
    }
}
