package isolatingexporter

import (
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"
)

const (
	// remembered is how long an offender is sent apart after its last refusal.
	remembered = 10 * time.Minute
	// mostOffenders bounds their number; beyond, one is searched for again each time.
	mostOffenders = 65536
)

// offender is a metric of a resource, or, where owner is empty, a class of metrics whosever they are.
type offender struct{ owner, kind string }

// record is what is known of an offender.
type record struct {
	until time.Time
	// proven says that the metric was refused by itself, and not only together with others.
	proven bool
}

// offenders holds who is sent apart.
type offenders map[offender]record

func (o offenders) forget(now time.Time) {
	for key, known := range o {
		if now.After(known.until) {
			delete(o, key)
		}
	}
}

// remember notes whose pieces were refused; undivided says that some of the metrics may be good.
func (o offenders) remember(pieces []piece, undivided bool, now time.Time) {
	proven := !undivided || ofOneMetric(pieces)
	for index, part := range pieces {
		if index > 0 && part.kindRank == pieces[index-1].kindRank {
			continue
		}
		key := offender{part.owner, part.kind}
		if known, ok := o[key]; ok || len(o) < mostOffenders {
			o[key] = record{now.Add(remembered), proven || known.proven}
		}
	}
}

// clear forgets those of pieces that were only ever refused together with others, and now are taken.
func (o offenders) clear(pieces []piece) {
	for _, part := range pieces {
		if key := (offender{part.owner, part.kind}); !o[key].proven {
			delete(o, key)
		}
	}
}

// part returns pieces of which nothing is known, those of offenders, and those of a class that is refused.
func (o offenders) part(pieces []piece) (good, suspect, ofClasses []piece) {
	for _, part := range pieces {
		_, whole := o[offender{kind: classOf(part.metric)}]
		_, single := o[offender{part.owner, part.kind}]
		switch {
		case whole:
			ofClasses = append(ofClasses, part)
		case single:
			suspect = append(suspect, part)
		default:
			good = append(good, part)
		}
	}
	return good, suspect, ofClasses
}

// classOf names the metrics that a receiver refuses for the same reason, whosever they are: those of one type and
// temporality, those without data and those without a name. It is empty where nothing of the kind may be at fault.
func classOf(metric pmetric.Metric) string {
	temporality := pmetric.AggregationTemporalityCumulative
	switch metric.Type() {
	case pmetric.MetricTypeSum:
		temporality = metric.Sum().AggregationTemporality()
	case pmetric.MetricTypeHistogram:
		temporality = metric.Histogram().AggregationTemporality()
	case pmetric.MetricTypeExponentialHistogram:
		temporality = metric.ExponentialHistogram().AggregationTemporality()
	}
	switch {
	case metric.Name() == "":
		return "unnamed"
	case metric.Type() == pmetric.MetricTypeEmpty || temporality != pmetric.AggregationTemporalityCumulative:
		return metric.Type().String() + " " + temporality.String()
	}
	return ""
}
