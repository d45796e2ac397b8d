//! The series of `/metrics` for tests.

use std::collections::BTreeMap;

/// The series of one scrape: `name{labels}` as printed, and the value.
#[derive(Debug, Clone, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Parses the Prometheus text format and skips lines that are not samples.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(sample).collect())
    }

    /// Returns the value of a series as it is printed, e.g. `genfleet_broker_connected{role="consume"}`.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.0.get(series).copied()
    }

    /// Returns the sum of the series with this name and all these labels; 0 if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|(_, value)| value).sum()
    }

    /// Returns the same sum as a whole number, so that counters can be compared exactly.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter is neither")]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.sum(name, labels).round() as u64
    }

    /// Returns the series with this name and all these labels.
    pub fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = (&'a str, f64)> {
        let all = self.0.iter().map(|(series, value)| (series.as_str(), *value));
        all.filter(move |(series, _)| {
            let (of, rest) = series.split_once('{').unwrap_or((series, ""));
            of == name && labels.iter().all(|label| carries(rest, label))
        })
    }

    /// Returns all series.
    pub fn all(&self) -> &BTreeMap<String, f64> {
        &self.0
    }
}

fn carries(labels: &str, (name, value): &(&str, &str)) -> bool {
    let wanted = format!("{name}=\"{value}\"");
    let mut found = labels.match_indices(&wanted);
    found.any(|(at, _)| at == 0 || labels.as_bytes()[at - 1] == b',')
}

fn sample(line: &str) -> Option<(String, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let end_of_series = line.rfind('}').map_or_else(|| line.find(' '), |brace| Some(brace + 1))?;
    let (series, value) = line.split_at(end_of_series);
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some((series.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    const TEXT: &str = r#"
# TYPE genfleet_jobs_total counter
genfleet_jobs_total{kind="cdn.purge",outcome="succeeded",code=""} 3
genfleet_jobs_total{kind="cdn.purge",outcome="failed",code="a } b"} 2 1700000000
genfleet_scans_in_flight 1.5
"#;

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.all().len(), 3);
        assert_eq!(metrics.get("genfleet_scans_in_flight"), Some(1.5));
        let failed = [("outcome", "failed"), ("kind", "cdn.purge")];
        assert_eq!(metrics.matching("genfleet_jobs_total", &failed).count(), 1);
        assert_eq!(metrics.count("genfleet_jobs_total", &[("kind", "cdn.purge")]), 5);
        assert_eq!(metrics.count("genfleet_jobs_total", &[("ind", "cdn.purge")]), 0);
    }
}
