//! `GET /metrics`: OpenMetrics 1.0. Nothing in it names a user, a command or a path.

use std::fmt;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use splengine_core::engine::{EngineStats, HistogramStats};

use crate::context::Context;
use crate::metrics::HttpMetrics;
use crate::query::NoQuery;

pub(crate) async fn metrics(State(context): State<Context>, _: NoQuery) -> Response {
    let mut registry = Registry::with_prefix("splengine");
    let HttpMetrics { requests, connections } = context.metrics.clone();
    registry.register("http_requests", "HTTP requests answered", requests);
    registry.register("http_connections", "HTTP connections open now", connections);
    let mut text = String::new();
    registry.register_collector(Box::new(Stats(context.engine.stats())));
    if encode(&mut text, &registry).is_err() {
        text.clear();
    }
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

/// The engine's counts, as metrics.
#[derive(Debug)]
struct Stats(EngineStats);

impl Collector for Stats {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &self.0;
        let mut to = Encoder(&mut encoder);
        to.counter("executions_started", "Executions that started", stats.started)?;
        let ended = stats.ended.iter().map(|(reason, count)| (reason.name(), *count));
        to.counters("executions_ended", "Executions that ended", "reason", ended, None)?;
        let refused = stats.refused.iter().map(|(kind, count)| (kind.name(), *count));
        to.counters(
            "executions_refused",
            "Executions refused before they started",
            "kind",
            refused,
            None,
        )?;
        to.gauge("executions_running", "Executions that run now", stats.running)?;
        to.gauge("executions_waiting", "Executions that wait in the queue now", stats.waiting)?;
        to.gauge("sessions_running", "Terminal sessions whose program runs", stats.sessions)?;
        to.gauge("batches_open", "Batches that are not over", stats.batches)?;
        to.gauge("session_clients", "Clients attached to sessions", stats.session_clients)?;
        to.seconds("execution_queue_wait", "Time from asking to being let in", &stats.queue_wait)?;
        to.seconds("execution_spawn", "Time from being let in to running", &stats.spawn)?;
        to.seconds("execution_run", "Time from running to the end", &stats.run)?;
        to.seconds_used("execution_cpu", "Processor time used", stats.cpu_time.as_secs_f64())?;
        let bytes = [("stdout", stats.stdout_bytes), ("stderr", stats.stderr_bytes)];
        to.counters("execution_output", "Bytes printed", "stream", bytes.into_iter(), BYTES)?;
        to.counter("executions_killed", "Executions that had to be killed", stats.kills)?;
        to.counter(
            "execution_background_processes_ended",
            "Background processes ended with their run",
            stats.swept,
        )?;
        to.counter(
            "execution_surviving_processes",
            "Processes that outlived their run though they should not",
            stats.leftovers,
        )?;
        let failures = stats.authentication_failures.iter().copied();
        to.counters(
            "authentication_failures",
            "Authentications that failed",
            "server",
            failures,
            None,
        )?;
        to.counter(
            "authentications_refused",
            "Authentications and connections refused since too many before them failed",
            stats.authentications_refused,
        )?;
        to.gauge(
            "penalised_addresses",
            "Addresses with a penalty for authentications that failed",
            stats.penalised_addresses,
        )?;
        to.gauge(
            "blocked_addresses",
            "Addresses blocked since too many authentications from them failed",
            stats.blocked_addresses,
        )?;
        let of = &stats.connections;
        to.gauge("connections_open", "Connections of all servers open now", of.open)?;
        to.gauge(
            "connections_unauthenticated",
            "Connections open now on which nobody has authenticated",
            of.unauthenticated,
        )?;
        let closed = [
            ("refused", of.refused),
            ("evicted", of.evicted),
            ("timed_out", of.timed_out),
            ("write_timed_out", of.write_timed_out),
        ];
        to.counters(
            "connections_closed",
            "Connections that servers closed for a bound of theirs",
            "cause",
            closed.into_iter(),
            None,
        )
    }
}

const BYTES: Option<&Unit> = Some(&Unit::Bytes);

struct Encoder<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Encoder<'_, '_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }

    fn seconds_used(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let metric = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }

    fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl Iterator<Item = (&'l str, u64)>,
        unit: Option<&Unit>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (value, count) in values {
            let labels = [(label, value)];
            ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric)
    }

    fn seconds(&mut self, name: &str, help: &str, times: &HistogramStats) -> fmt::Result {
        let unit = Unit::Seconds;
        let mut metric =
            self.0.encode_descriptor(name, help, Some(&unit), MetricType::Histogram)?;
        let count = times.buckets.iter().map(|(_, count)| count).sum();
        metric.encode_histogram::<NoLabelSet>(times.sum, count, &times.buckets, None)
    }
}
