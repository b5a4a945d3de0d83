package isolatingexporter

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// piece is a data point, or a metric without points: the least that can be sent alone.
type piece struct {
	resource pmetric.ResourceMetrics
	scope    pmetric.ScopeMetrics
	metric   pmetric.Metric
	// index of the point in the metric, -1 where it has none.
	index int
	// time as Prometheus reads it: one beyond 2^63 is before 1970.
	time int64
	// owner, room and kind tell resources, scopes of one and metrics of one from each other.
	owner, room, kind string
	// rank of these in the request, in the order of their first points.
	ownerRank, roomRank, kindRank int
}

// flatten returns the pieces of a request, those of a resource, a scope and a metric together. Points of one series
// keep their order.
func flatten(metrics pmetric.Metrics) []piece {
	var pieces []piece
	ranks := map[string]int{}
	rank := func(parts ...string) int {
		key := strings.Join(parts, "\x00")
		if _, ok := ranks[key]; !ok {
			ranks[key] = len(ranks)
		}
		return ranks[key]
	}
	for _, resource := range metrics.ResourceMetrics().All() {
		owner := resource.SchemaUrl() + "\x01" + sorted(resource.Resource().Attributes())
		for _, scope := range resource.ScopeMetrics().All() {
			own := scope.Scope()
			room := strings.Join([]string{own.Name(), own.Version(), scope.SchemaUrl(), sorted(own.Attributes())}, "\x01")
			for _, metric := range scope.Metrics().All() {
				kind := kindOf(metric)
				made := piece{
					resource: resource, scope: scope, metric: metric, owner: owner, room: room, kind: kind,
					ownerRank: rank(owner), roomRank: rank(owner, room), kindRank: rank(owner, room, kind),
				}
				times := timesOf(metric)
				for index, time := range times {
					made.index, made.time = index, int64(time)
					pieces = append(pieces, made)
				}
				if len(times) == 0 {
					made.index, made.time = -1, 0
					pieces = append(pieces, made)
				}
			}
		}
	}
	slices.SortStableFunc(pieces, func(a, b piece) int {
		return cmp.Or(
			cmp.Compare(a.ownerRank, b.ownerRank), cmp.Compare(a.roomRank, b.roomRank), cmp.Compare(a.kindRank, b.kindRank),
		)
	})
	return pieces
}

// assemble makes a request of pieces.
func assemble(pieces []piece) pmetric.Metrics {
	made := pmetric.NewMetrics()
	var resource pmetric.ResourceMetrics
	var scope pmetric.ScopeMetrics
	var metric pmetric.Metric
	for index, part := range pieces {
		newOwner := index == 0 || part.ownerRank != pieces[index-1].ownerRank
		newRoom := newOwner || part.roomRank != pieces[index-1].roomRank
		newKind := newRoom || part.kindRank != pieces[index-1].kindRank
		if newOwner {
			resource = made.ResourceMetrics().AppendEmpty()
			part.resource.Resource().CopyTo(resource.Resource())
			resource.SetSchemaUrl(part.resource.SchemaUrl())
		}
		if newRoom {
			scope = resource.ScopeMetrics().AppendEmpty()
			part.scope.Scope().CopyTo(scope.Scope())
			scope.SetSchemaUrl(part.scope.SchemaUrl())
		}
		if newKind {
			metric = scope.Metrics().AppendEmpty()
			copyHead(part.metric, metric)
		}
		copyPoint(part.metric, part.index, metric)
	}
	return made
}

// cut splits pieces in two, between resources if there are several, else between metrics, as near to the middle as may
// be.
func cut(pieces []piece) ([]piece, []piece) {
	middle := len(pieces) / 2
	for _, differ := range []func(a, b piece) bool{
		func(a, b piece) bool { return a.ownerRank != b.ownerRank },
		func(a, b piece) bool { return a.kindRank != b.kindRank },
	} {
		for distance := range middle + 1 {
			for _, at := range []int{middle - distance, middle + distance} {
				if at > 0 && at < len(pieces) && differ(pieces[at-1], pieces[at]) {
					return pieces[:at], pieces[at:]
				}
			}
		}
	}
	return pieces[:middle], pieces[middle:]
}

func ofOneMetric(pieces []piece) bool {
	return pieces[0].kindRank == pieces[len(pieces)-1].kindRank
}

func ofOneOwner(pieces []piece) bool {
	return pieces[0].ownerRank == pieces[len(pieces)-1].ownerRank
}

// sorted returns attributes as one text that does not depend on their order.
func sorted(attributes pcommon.Map) string {
	pairs := make([]string, 0, attributes.Len())
	for key, value := range attributes.All() {
		pairs = append(pairs, fmt.Sprintf("%s=%d%s", key, value.Type(), value.AsString()))
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "\x02")
}

func kindOf(metric pmetric.Metric) string {
	temporality, monotonic := pmetric.AggregationTemporalityUnspecified, false
	switch metric.Type() {
	case pmetric.MetricTypeSum:
		temporality, monotonic = metric.Sum().AggregationTemporality(), metric.Sum().IsMonotonic()
	case pmetric.MetricTypeHistogram:
		temporality = metric.Histogram().AggregationTemporality()
	case pmetric.MetricTypeExponentialHistogram:
		temporality = metric.ExponentialHistogram().AggregationTemporality()
	}
	return fmt.Sprintf("%s\x01%s\x01%d\x01%d\x01%t", metric.Name(), metric.Unit(), metric.Type(), temporality, monotonic)
}

func timesOf(metric pmetric.Metric) (times []pcommon.Timestamp) {
	switch metric.Type() {
	case pmetric.MetricTypeGauge:
		for _, point := range metric.Gauge().DataPoints().All() {
			times = append(times, point.Timestamp())
		}
	case pmetric.MetricTypeSum:
		for _, point := range metric.Sum().DataPoints().All() {
			times = append(times, point.Timestamp())
		}
	case pmetric.MetricTypeHistogram:
		for _, point := range metric.Histogram().DataPoints().All() {
			times = append(times, point.Timestamp())
		}
	case pmetric.MetricTypeExponentialHistogram:
		for _, point := range metric.ExponentialHistogram().DataPoints().All() {
			times = append(times, point.Timestamp())
		}
	case pmetric.MetricTypeSummary:
		for _, point := range metric.Summary().DataPoints().All() {
			times = append(times, point.Timestamp())
		}
	}
	return times
}

// copyHead copies all of a metric but its points.
func copyHead(from, to pmetric.Metric) {
	to.SetName(from.Name())
	to.SetDescription(from.Description())
	to.SetUnit(from.Unit())
	from.Metadata().CopyTo(to.Metadata())
	switch from.Type() {
	case pmetric.MetricTypeGauge:
		to.SetEmptyGauge()
	case pmetric.MetricTypeSum:
		to.SetEmptySum().SetAggregationTemporality(from.Sum().AggregationTemporality())
		to.Sum().SetIsMonotonic(from.Sum().IsMonotonic())
	case pmetric.MetricTypeHistogram:
		to.SetEmptyHistogram().SetAggregationTemporality(from.Histogram().AggregationTemporality())
	case pmetric.MetricTypeExponentialHistogram:
		to.SetEmptyExponentialHistogram().SetAggregationTemporality(from.ExponentialHistogram().AggregationTemporality())
	case pmetric.MetricTypeSummary:
		to.SetEmptySummary()
	}
}

func copyPoint(from pmetric.Metric, index int, to pmetric.Metric) {
	if index < 0 {
		return
	}
	switch from.Type() {
	case pmetric.MetricTypeGauge:
		from.Gauge().DataPoints().At(index).CopyTo(to.Gauge().DataPoints().AppendEmpty())
	case pmetric.MetricTypeSum:
		from.Sum().DataPoints().At(index).CopyTo(to.Sum().DataPoints().AppendEmpty())
	case pmetric.MetricTypeHistogram:
		from.Histogram().DataPoints().At(index).CopyTo(to.Histogram().DataPoints().AppendEmpty())
	case pmetric.MetricTypeExponentialHistogram:
		point := to.ExponentialHistogram().DataPoints().AppendEmpty()
		from.ExponentialHistogram().DataPoints().At(index).CopyTo(point)
	case pmetric.MetricTypeSummary:
		from.Summary().DataPoints().At(index).CopyTo(to.Summary().DataPoints().AppendEmpty())
	}
}
