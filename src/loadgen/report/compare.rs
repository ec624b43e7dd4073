//! Which runs may stand beside each other, and what they give together.
//!
//! A *scene* is what was asked for apart from the label: workload, loop and rate, and the settings
//! that differ between the runs of some label (what is constant within each, the label says).
//! Void and broken runs are in no scene.

use std::collections::{BTreeMap, BTreeSet};

use super::bars::{Bar, Group};
use super::chart::{COLOURS, DASHES, Line, Look};
use super::graphs::percentile_line;
use super::table::load_words;
use super::units::{NONE, number};
use crate::loadgen::outcome::{Latency, Outcome};

/// Settings that name a run and do not change what it does.
const NAMES: [&str; 7] = [
    "topic",
    "group",
    "namesrv",
    "seed",
    "core",
    "brokerPid",
    "label",
];
/// More kinds of lines than this are not told apart in one chart.
const LINES_MAX: usize = 8;

/// All runs of a page.
pub struct Runs<'a> {
    pub outcomes: &'a [Outcome],
    /// In order of appearance.
    pub labels: Vec<&'a str>,
    /// Settings that tell runs of one label apart.
    varying: BTreeSet<&'a str>,
}

/// Sound runs of the same load.
pub struct Scene<'a> {
    pub name: String,
    workload: &'a str,
    by_label: BTreeMap<usize, Vec<&'a Outcome>>,
}

/// Whether the figures may be used.
pub fn is_sound(outcome: &Outcome) -> bool {
    outcome.void.is_empty() && outcome.broken.is_none()
}

/// User and system time together, microseconds.
pub fn broker_us(outcome: &Outcome) -> Option<f64> {
    let cost = outcome.broker.as_ref()?;
    Some(cost.user_us_per_message + cost.system_us_per_message)
}

/// A label as people see it.
pub fn label_words(label: &str) -> &str {
    if label.is_empty() {
        "(no label)"
    } else {
        label
    }
}

impl<'a> Runs<'a> {
    pub fn of(outcomes: &'a [Outcome]) -> Runs<'a> {
        let mut labels: Vec<&str> = Vec::new();
        for outcome in outcomes {
            if !labels.contains(&outcome.label.as_str()) {
                labels.push(&outcome.label);
            }
        }
        let mut first: BTreeMap<(&str, &str, &str), &str> = BTreeMap::new();
        let mut varying = BTreeSet::new();
        for outcome in outcomes {
            for (key, value) in &outcome.settings {
                let place = (
                    outcome.label.as_str(),
                    outcome.workload.as_str(),
                    key.as_str(),
                );
                if *first.entry(place).or_insert(value) != value && !NAMES.contains(&key.as_str()) {
                    varying.insert(key.as_str());
                }
            }
        }
        Runs {
            outcomes,
            labels,
            varying,
        }
    }

    /// Workload, rate and the settings that vary.
    pub fn scene_name(&self, outcome: &Outcome) -> String {
        let varying = words(outcome, &self.varying);
        let comma = if varying.is_empty() { "" } else { ", " };
        format!(
            "{}, {}{comma}{varying}",
            outcome.workload,
            load_words(outcome)
        )
    }

    /// The runs of a label with their places among all, those of the same load together.
    pub fn of_label(&self, label: &str) -> Vec<(usize, &'a Outcome)> {
        let mut names: Vec<String> = Vec::new();
        let mut rows = Vec::new();
        for (index, outcome) in self.outcomes.iter().enumerate() {
            let name = self.scene_name(outcome);
            let place = names.iter().position(|other| *other == name);
            let place = place.unwrap_or(names.len());
            if place == names.len() {
                names.push(name);
            }
            if outcome.label == label {
                rows.push((place, index, outcome));
            }
        }
        rows.sort_by_key(|(place, index, _)| (*place, *index));
        rows.into_iter()
            .map(|(_, index, outcome)| (index, outcome))
            .collect()
    }

    fn label_index(&self, outcome: &Outcome) -> usize {
        let same = |label: &&str| *label == outcome.label;
        self.labels.iter().position(same).unwrap_or(0)
    }

    /// In order of appearance.
    pub fn scenes(&self) -> Vec<Scene<'a>> {
        let mut scenes: Vec<Scene<'a>> = Vec::new();
        for outcome in self.outcomes.iter().filter(|outcome| is_sound(outcome)) {
            let name = self.scene_name(outcome);
            let at = scenes
                .iter()
                .position(|scene| scene.name == name)
                .unwrap_or_else(|| {
                    let workload = outcome.workload.as_str();
                    scenes.push(Scene {
                        name,
                        workload,
                        by_label: BTreeMap::new(),
                    });
                    scenes.len() - 1
                });
            let label = self.label_index(outcome);
            scenes[at].by_label.entry(label).or_default().push(outcome);
        }
        scenes
    }

    /// A bar for each label of each scene: the median of its runs, with their range.
    pub fn groups(&self, unit: &str, of: impl Fn(&Outcome) -> Option<f64>) -> Vec<Group> {
        let scenes = self.scenes();
        let mut groups: Vec<(&str, Group)> = Vec::new();
        for scene in &scenes {
            let bars = self.bars(scene, unit, &of);
            let full = bars.iter().map(|bar| bar.range.1).fold(0.0, f64::max);
            if !bars.is_empty() {
                let name = scene.name.clone();
                groups.push((scene.workload, Group { name, full, bars }));
            }
        }
        // Without a neighbour in its scene a bar is compared with those of other scenes.
        if groups.iter().all(|(_, group)| group.bars.len() == 1) {
            let mut longest: BTreeMap<&str, f64> = BTreeMap::new();
            for (workload, group) in &groups {
                let full = longest.entry(workload).or_default();
                *full = full.max(group.full);
            }
            for (workload, group) in &mut groups {
                group.full = longest[workload];
            }
        }
        groups.into_iter().map(|(_, group)| group).collect()
    }

    fn bars(&self, scene: &Scene, unit: &str, of: &impl Fn(&Outcome) -> Option<f64>) -> Vec<Bar> {
        let mut bars = Vec::new();
        for (index, runs) in &scene.by_label {
            let mut values: Vec<f64> = runs.iter().filter_map(|run| of(run)).collect();
            values.retain(|value| value.is_finite());
            values.sort_by(f64::total_cmp);
            let (Some(low), Some(high)) = (values.first(), values.last()) else {
                continue;
            };
            let value = median(&values);
            let runs = match values.len() {
                1 => String::new(),
                runs => format!(" ({runs} runs)"),
            };
            bars.push(Bar {
                name: label_words(self.labels[*index]).to_owned(),
                value,
                range: (*low, *high),
                words: format!("{} {unit}{runs}", number(value)),
                colour: index % COLOURS,
            });
        }
        let least = bars
            .iter()
            .map(|bar| bar.value)
            .fold(f64::INFINITY, f64::min);
        for bar in bars
            .iter_mut()
            .filter(|bar| least > 0.0 && bar.value > least)
        {
            let times = format!(" · {} ×", number(bar.value / least));
            bar.words.push_str(&times);
        }
        bars
    }

    /// Latency curves of the main parts, those of the same workload and rate together; a chart for
    /// each scene where that would be too many lines.
    pub fn curves(&self) -> Vec<(String, Vec<Line>)> {
        let mut charts: Vec<(String, Vec<&Outcome>)> = Vec::new();
        let sound = self.outcomes.iter().filter(|outcome| is_sound(outcome));
        for outcome in sound.filter(|outcome| main_latency(outcome).is_some()) {
            let name = format!("{}, {}", outcome.workload, load_words(outcome));
            add(&mut charts, name, outcome);
        }
        let mut parts: Vec<(String, Vec<&Outcome>)> = Vec::new();
        for (name, runs) in charts {
            let (same, differing) = self.split(&runs);
            let names = runs.iter().map(|run| line_name(run, &differing));
            if names.collect::<BTreeSet<_>>().len() > LINES_MAX {
                for run in runs {
                    add(&mut parts, self.scene_name(run), run);
                }
            } else {
                let same = runs.first().map_or(String::new(), |run| words(run, &same));
                let comma = if same.is_empty() { "" } else { ", " };
                parts.push((format!("{name}{comma}{same}"), runs));
            }
        }
        let drawn = parts.into_iter();
        drawn
            .map(|(name, runs)| (name, self.lines(&runs)))
            .collect()
    }

    /// The varying settings in which runs agree, and the others.
    fn split(&self, runs: &[&Outcome]) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
        let first = |key: &str| runs.first().and_then(|run| run.settings.get(key));
        let agreed = |key: &&str| runs.iter().all(|run| run.settings.get(*key) == first(key));
        self.varying.iter().copied().partition(agreed)
    }

    /// Colours are labels and dashes their loads; where there is one label, colours are loads.
    fn lines(&self, runs: &[&Outcome]) -> Vec<Line> {
        let (_, differing) = self.split(runs);
        let mut seen: Vec<(usize, String)> = Vec::new();
        let mut lines = Vec::new();
        for run in runs {
            let kind = (self.label_index(run), line_name(run, &differing));
            if !seen.contains(&kind) {
                seen.push(kind.clone());
            }
            let of_label = seen.iter().filter(|(label, _)| *label == kind.0);
            let nth = of_label.take_while(|other| **other != kind).count();
            let look = match self.labels.len() {
                1 => Look::nth(nth),
                _ => Look {
                    colour: kind.0 % COLOURS,
                    dash: nth % DASHES,
                },
            };
            lines.extend(main_latency(run).map(|latency| percentile_line(&kind.1, latency, look)));
        }
        lines
    }
}

fn words(outcome: &Outcome, keys: &BTreeSet<&str>) -> String {
    let shown = |key: &&str| Some(format!("{key} {}", outcome.settings.get(*key)?));
    keys.iter().filter_map(shown).collect::<Vec<_>>().join(", ")
}

fn line_name(outcome: &Outcome, differing: &BTreeSet<&str>) -> String {
    match (outcome.label.as_str(), words(outcome, differing)) {
        (label, words) if words.is_empty() => label_words(label).to_owned(),
        ("", words) => words,
        (label, words) => format!("{label}, {words}"),
    }
}

fn add<'a>(charts: &mut Vec<(String, Vec<&'a Outcome>)>, name: String, run: &'a Outcome) {
    match charts.iter_mut().find(|(other, _)| *other == name) {
        Some((_, runs)) => runs.push(run),
        None => charts.push((name, vec![run])),
    }
}

/// Of the part that is the workload's main one.
pub fn main_latency(outcome: &Outcome) -> Option<&Latency> {
    outcome.parts.first()?.latency.as_ref()
}

/// Of sorted values, of which there is one at least.
fn median(values: &[f64]) -> f64 {
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// One word for whether the figures may be used.
pub fn verdict(outcome: &Outcome) -> &'static str {
    match (&outcome.broken, outcome.void.is_empty()) {
        (Some(_), _) => "BROKEN",
        (None, false) => "VOID",
        (None, true) => "sound",
    }
}

/// Why they may not; nothing for a sound run.
pub fn reasons(outcome: &Outcome) -> String {
    let broken = outcome.broken.iter().map(|why| format!("BROKEN: {why}"));
    let void = outcome.void.iter().map(|why| format!("VOID: {why}"));
    broken.chain(void).collect::<Vec<_>>().join("; ")
}

/// Of the summary: what each column is called and what a run has there.
pub fn summary(runs: &Runs, outcome: &Outcome) -> Vec<(&'static str, String)> {
    use super::table::{failed, is_proved, megabytes_per_second};
    use super::units::{count, nanos};
    let part = outcome.parts.first();
    let latency = main_latency(outcome);
    let of_part = |value: Option<f64>| value.map_or(NONE.to_owned(), number);
    let time = |value: Option<u64>| value.map_or(NONE.to_owned(), |value| nanos(value as f64));
    let failures = outcome
        .parts
        .iter()
        .fold(0u64, |sum, part| sum.saturating_add(failed(part)));
    let verified = outcome.verified.as_ref();
    vec![
        ("run", runs.scene_name(outcome)),
        ("msg/s", of_part(part.map(|part| part.messages_per_second))),
        ("MB/s", of_part(part.map(megabytes_per_second))),
        ("p50", time(latency.map(|latency| latency.p50))),
        ("p99", time(latency.map(|latency| latency.p99))),
        ("p99.9", time(latency.map(|latency| latency.p999))),
        ("max", time(latency.map(|latency| latency.max))),
        ("CPU µs/msg", of_part(broker_us(outcome))),
        ("failed", count(failures)),
        (
            "verified",
            verified
                .map_or(NONE, |v| if is_proved(v) { "sound" } else { "FAILED" })
                .to_owned(),
        ),
        ("verdict", verdict(outcome).to_owned()),
    ]
}
