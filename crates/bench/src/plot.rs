//! Plot of latency percentiles as SVG, made by plotters. Knows no benchmark: every histogram of a report is a line.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use serde_json::Value;

use crate::report::Latency;

const SIZE: (u32, u32) = (960, 540);

/// Named line of a plot.
#[derive(Debug)]
pub(crate) struct Series {
    name: String,
    latency: Latency,
}

/// Returns the histograms of reports, merged over their rounds. Their names are their places in a round.
pub(crate) fn series<'a>(prefix: &str, reports: impl IntoIterator<Item = &'a Value>) -> Result<Vec<Series>> {
    let mut merged: BTreeMap<String, Latency> = BTreeMap::new();
    for report in reports {
        for round in report["rounds"].as_array().into_iter().flatten() {
            collect(prefix, round, &mut merged)?;
        }
    }
    let filled = merged.into_iter().filter(|(_, latency)| latency.count() > 0);
    Ok(filled.map(|(name, latency)| Series { name, latency }).collect())
}

fn collect(name: &str, value: &Value, merged: &mut BTreeMap<String, Latency>) -> Result<()> {
    let Value::Object(fields) = value else { return Ok(()) };
    if let Some(hdr) = fields.get("hdr").and_then(Value::as_str) {
        let name = name.trim_end().to_owned();
        return merged.entry(name).or_insert_with(Latency::new).merge(&Latency::decode(hdr)?);
    }
    for (key, field) in fields {
        collect(&format!("{name}{} ", key.replace('_', " ")), field, merged)?;
    }
    Ok(())
}

/// Draws latencies in milliseconds by percentile, both logarithmic: every further step to the right is ten times rarer.
pub(crate) fn svg(title: &str, series: &[Series]) -> Result<String> {
    let mut text = String::new();
    draw(&mut text, title, series).map_err(|error| anyhow!("failed to draw the plot: {error}"))?;
    Ok(text)
}

fn draw(
    text: &mut String,
    title: &str,
    series: &[Series],
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>> {
    let lines: Vec<Vec<(f64, f64)>> = series.iter().map(|one| points(&one.latency)).collect();
    let all = || lines.iter().flatten();
    let right = all().map(|point| point.0).fold(2.0, f64::max).ceil();
    let low = all().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let high = all().map(|point| point.1).fold(0.01, f64::max);
    let low = if low.is_finite() { low } else { 0.001 };

    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..right, (low * 0.8..high * 1.25).log_scale())?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
    let labels = right as usize + 1;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .y_desc("latency (ms)")
        .x_labels(labels)
        .x_label_formatter(&|position| percentile(*position))
        .y_label_formatter(&|millis| format!("{millis}"))
        .draw()?;
    for (index, (one, line)) in series.iter().zip(lines).enumerate() {
        let color = Palette99::pick(index).to_rgba();
        chart
            .draw_series(LineSeries::new(line, color.stroke_width(2)))?
            .label(one.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    area.present()
}

/// Returns latencies by the number of nines of their quantile, as far as there are measurements.
fn points(latency: &Latency) -> Vec<(f64, f64)> {
    #[expect(clippy::cast_precision_loss, reason = "counts of measurements are small")]
    let last = (latency.count().max(10) as f64).log10();
    latency.quantiles().map(|(quantile, millis)| (nines(quantile).min(last), millis)).collect()
}

fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

/// Label of a position: 1 is `90`, 2 is `99`, 3 is `99.9`.
fn percentile(nines: f64) -> String {
    let percentile = 100.0 * (1.0 - 10_f64.powf(-nines));
    let digits = (nines.ceil() - 2.0).max(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
    let digits = digits as usize;
    format!("{percentile:.digits$}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn svg_is_well_formed_and_labelled() {
        let mut latency = Latency::new();
        (1..=10_000).for_each(|micros| latency.record(Duration::from_micros(micros)));
        let report = json!({"rounds": [{"creation": latency}, {"creation": latency, "queue": {"hand_over": latency}}]});
        // An older build reports no histograms.
        let older = json!({"rounds": [{"creation": {"p50_ms": 1.0}}]});
        let mut lines = series("this: ", [&report]).unwrap();
        lines.extend(series("against: ", [&older]).unwrap());
        let named: Vec<_> = lines.iter().map(|line| (line.name.as_str(), line.latency.count())).collect();
        assert_eq!(named, [("this: creation", 20_000), ("this: queue hand over", 10_000)]);
        let text = svg("rota bench < load", &lines).unwrap();
        let document = roxmltree::Document::parse(&text).unwrap();
        let texts: Vec<_> = document.descendants().filter_map(|node| node.text()).map(str::trim).collect();
        for label in
            ["rota bench < load", "percentile", "latency (ms)", "this: creation", "0", "90", "99", "99.9"]
        {
            assert!(texts.contains(&label), "{label} is not in {texts:?}");
        }
        assert!(document.descendants().filter(|node| node.has_tag_name("polyline")).count() >= 2);
    }

    #[test]
    fn plot_without_measurements_is_drawn() {
        assert!(roxmltree::Document::parse(&svg("empty", &[]).unwrap()).is_ok());
    }
}
