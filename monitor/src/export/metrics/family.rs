//! Metric families, built straight from the snapshot.

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair};
use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::lifetimes::Folded;

/// What every name starts with.
pub(super) const PREFIX: &str = "leakwatch_";

/// A family that is being filled.
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    metrics: Vec<Metric>,
}

impl Family {
    /// Of values that rise and fall.
    pub(super) fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::GAUGE)
    }

    /// Of values that only rise.
    pub(super) fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::COUNTER)
    }

    /// Of lifetimes.
    pub(super) fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::HISTOGRAM)
    }

    fn new(name: &'static str, help: &'static str, kind: MetricType) -> Self {
        Self { name, help, kind, metrics: Vec::new() }
    }

    /// Adds a sample.
    pub(super) fn push(&mut self, labels: &[(&str, &str)], value: f64) {
        let mut metric = Metric::from_label(pairs(labels));
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// Adds a sample where the value is known; what is unknown stays absent.
    pub(super) fn push_known(&mut self, labels: &[(&str, &str)], value: Option<u64>) {
        if let Some(value) = value {
            self.push(labels, value as f64);
        }
    }

    /// Adds a histogram.
    pub(super) fn push_histogram(&mut self, labels: &[(&str, &str)], folded: &Folded) {
        let mut histogram = Histogram::default();
        histogram.set_sample_count(folded.count);
        histogram.set_sample_sum(folded.sum_seconds);
        let bucket = |&(bound, count): &(f64, u64)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        };
        histogram.set_bucket(folded.cumulative.iter().map(bucket).collect());
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    /// Hands the family over; one without a sample is left out, since the
    /// encoder refuses it and a reader would learn nothing from it.
    pub(super) fn finish(self, out: &mut Vec<MetricFamily>) {
        if self.metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(format!("{PREFIX}{}", self.name));
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(self.metrics);
        out.push(family);
    }
}

/// About how many bytes the families make as text.
pub(super) fn weight(families: &[MetricFamily]) -> usize {
    let of_label = |l: &LabelPair| l.name().len() + l.value().len() + 4;
    let of_metric = |m: &Metric| m.get_label().iter().map(of_label).sum::<usize>();
    families
        .iter()
        .map(|f| f.get_metric().iter().map(|m| f.name().len() + 8 + of_metric(m)).sum::<usize>())
        .sum()
}

fn pairs(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |&(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}
