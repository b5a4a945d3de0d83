package isolatingexporter

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

const (
	nothingLost  = "nothing is given up, for the receiver refuses everything: "
	valueMissing = "the point has no value; Prometheus would store 0"
)

// isolating sends batches, one after the other, whatever the number of consumers.
type isolating struct {
	mutex     sync.Mutex
	client    *client
	refusals  *refusals
	offenders offenders
	// mayRepeat says that the receiver may have this batch already: it did not answer, or this process has just begun
	// and an earlier one may have sent it.
	mayRepeat bool
}

// push sends a batch. An error is about what is to be sent again: all or, after a part was taken, the rest.
func (e *isolating) push(ctx context.Context, metrics pmetric.Metrics) error {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.leaveOutEmpty(metrics)
	if metrics.ResourceMetrics().Len() == 0 {
		return nil
	}
	made := search{isolating: e, classes: map[string]answer{}}
	e.offenders.forget(time.Now())
	switch {
	case len(e.offenders) > 0:
		good, suspect, ofClasses := e.offenders.part(flatten(metrics))
		made.groups = portions(good)
		for _, whole := range portions(ofClasses) {
			whole.ofClasses = true
			made.groups = append(made.groups, whole)
		}
		made.groups = append(made.groups, likelyBad(suspect, true)...)
	case metricsIn(metrics) > mostMetrics:
		made.groups = portions(flatten(metrics))
	default:
		reply := e.client.send(ctx, metrics)
		switch reply.verdict {
		case taken:
			e.took(reply)
			return nil
		case wait:
			e.mayRepeat = e.mayRepeat || reply.unanswered
			return reply.err("")
		}
		made.groups = []group{{pieces: flatten(metrics), answer: &reply}}
	}
	return made.run(ctx)
}

// giveUp counts and names what was refused, once it is shown that the receiver takes something. Where the receiver may
// have been at fault, it is asked once more. newest is the time of a point that it has just taken, 0 if there is none.
func (e *isolating) giveUp(ctx context.Context, bad []group, newest pcommon.Timestamp) error {
	if len(bad) == 0 {
		e.mayRepeat = false
		return nil
	}
	reply := e.client.send(ctx, probe(pcommon.NewTimestampFromTime(time.Now())))
	if newest > 0 && (reply.reason == tooFarAhead || reply.reason == tooOld) {
		// This machine's own clock is wrong.
		reply = e.client.send(ctx, probe(newest))
	}
	if reply.verdict != taken {
		return e.wait(reply, nothingLost+bad[0].answer.text+"; a point of its own: ", bad)
	}
	var noted losses
	defer func() { noted.note(e.refusals) }()
	for index, lost := range bad {
		if lost.answer.unclear {
			reply := e.client.send(ctx, assemble(lost.pieces))
			switch reply.verdict {
			case taken:
				e.took(reply)
				continue
			case wait:
				return e.wait(reply, "", bad[index:])
			}
			lost.answer = &reply
		}
		reply := *lost.answer
		if reply.reason == outOfOrder && e.mayRepeat {
			reply.reason = repetition
		}
		if lost.undivided {
			reply.reason = undivided
		}
		noted.add(lost.pieces, reply.reason, reply.text)
		if reply.reason != repetition && !lost.ofClasses {
			e.offenders.remember(lost.pieces, lost.undivided, time.Now())
		}
	}
	e.mayRepeat = false
	return nil
}

// wait returns the error after which groups are sent again.
func (e *isolating) wait(reply answer, prefix string, groups []group) error {
	e.mayRepeat = e.mayRepeat || reply.unanswered
	var pieces []piece
	for _, rest := range groups {
		pieces = append(pieces, rest.pieces...)
	}
	return consumererror.NewMetrics(reply.err(prefix), assemble(pieces))
}

func (e *isolating) took(reply answer) {
	if reply.rejected > 0 {
		e.refusals.noteUnnamed(reply.rejected, reply.text)
	}
}

// leaveOutEmpty takes out points that would be stored as what they are not, and metrics of no type.
func (e *isolating) leaveOutEmpty(metrics pmetric.Metrics) {
	empty := false
	isEmpty := func(point pmetric.NumberDataPoint) bool {
		return point.ValueType() == pmetric.NumberDataPointValueTypeEmpty && !point.Flags().NoRecordedValue()
	}
	for _, resource := range metrics.ResourceMetrics().All() {
		for _, scope := range resource.ScopeMetrics().All() {
			for _, metric := range scope.Metrics().All() {
				switch metric.Type() {
				case pmetric.MetricTypeGauge:
					empty = empty || anyPoint(metric.Gauge().DataPoints(), isEmpty)
				case pmetric.MetricTypeSum:
					empty = empty || anyPoint(metric.Sum().DataPoints(), isEmpty)
				}
			}
		}
	}
	if !empty {
		return
	}
	pieces := flatten(metrics)
	kept := slices.DeleteFunc(slices.Clone(pieces), func(part piece) bool { return pointIs(part, isEmpty) })
	lost := slices.DeleteFunc(pieces, func(part piece) bool { return !pointIs(part, isEmpty) })
	e.refusals.note(lost, noValue, valueMissing)
	assemble(kept).MoveTo(metrics)
}

func metricsIn(metrics pmetric.Metrics) (count int) {
	for _, resource := range metrics.ResourceMetrics().All() {
		for _, scope := range resource.ScopeMetrics().All() {
			count += scope.Metrics().Len()
		}
	}
	return count
}

func anyPoint(points pmetric.NumberDataPointSlice, is func(pmetric.NumberDataPoint) bool) bool {
	for _, point := range points.All() {
		if is(point) {
			return true
		}
	}
	return false
}

func pointIs(part piece, is func(pmetric.NumberDataPoint) bool) bool {
	switch {
	case part.index < 0:
		return false
	case part.metric.Type() == pmetric.MetricTypeGauge:
		return is(part.metric.Gauge().DataPoints().At(part.index))
	case part.metric.Type() == pmetric.MetricTypeSum:
		return is(part.metric.Sum().DataPoints().At(part.index))
	}
	return false
}

// probe makes a request of one point that nothing is wrong with.
func probe(at pcommon.Timestamp) pmetric.Metrics {
	made := pmetric.NewMetrics()
	resource := made.ResourceMetrics().AppendEmpty()
	resource.Resource().Attributes().PutStr("service.name", "otelcol-train")
	metric := resource.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	metric.SetName("otelcol.exporter.probe")
	metric.SetDescription("Sent by a collector before it gives up points that this receiver has refused.")
	point := metric.SetEmptyGauge().DataPoints().AppendEmpty()
	point.SetTimestamp(at)
	point.SetIntValue(1)
	return made
}
