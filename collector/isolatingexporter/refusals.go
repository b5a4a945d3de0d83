package isolatingexporter

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"
)

const (
	// mostCounts bounds the series of the counter; the one that has been still for longest goes.
	mostCounts = 512
	// logAgain is how long the same refusal is not logged again, and mostLines how many lines a minute may have.
	logAgain  = time.Hour
	mostLines = 60
)

// named are the attributes of a resource by which a sender is known.
var named = []string{"service.name", "train.run.id", "train.rank", "host.name"}

type count struct {
	attributes attribute.Set
	points     int64
	last       time.Time
}

// refusals counts and logs what was given up.
type refusals struct {
	logger *zap.Logger
	id     string

	mutex  sync.Mutex
	counts map[string]*count

	logged        map[string]time.Time
	minute        time.Time
	lines, hidden int
}

func newRefusals(set exporter.Settings) (*refusals, error) {
	made := &refusals{
		logger: set.Logger,
		id:     set.ID.String(),
		counts: map[string]*count{},
		logged: map[string]time.Time{},
	}
	_, err := set.MeterProvider.Meter("otel_train/isolatingexporter").Int64ObservableCounter(
		"otelcol_exporter_refused_metric_points",
		metric.WithDescription("Data points that were given up, for the receiver refuses them alone."),
		metric.WithUnit("{datapoint}"),
		metric.WithInt64Callback(func(_ context.Context, observer metric.Int64Observer) error {
			made.mutex.Lock()
			defer made.mutex.Unlock()
			for _, counted := range made.counts {
				observer.Observe(counted.points, metric.WithAttributeSet(counted.attributes))
			}
			return nil
		}),
	)
	return made, err
}

// note counts and logs pieces that were refused together.
func (r *refusals) note(pieces []piece, reason, text string) {
	for start := 0; start < len(pieces); {
		stop := start
		for stop < len(pieces) && pieces[stop].kindRank == pieces[start].kindRank {
			stop++
		}
		r.add(pieces[start].resource.Resource().Attributes(), pieces[start].metric.Name(), reason, text, int64(stop-start))
		start = stop
	}
}

// noteUnnamed counts points of which the receiver did not say whose they are.
func (r *refusals) noteUnnamed(points int64, text string) {
	r.add(pcommon.NewMap(), "", partial, text, points)
}

func (r *refusals) add(resource pcommon.Map, name, reason, text string, points int64) {
	now := time.Now()
	attributes := []attribute.KeyValue{
		attribute.String("exporter", r.id), attribute.String("metric", oneLine(name)), attribute.String("reason", reason),
	}
	var sender []string
	for _, key := range named {
		if value, ok := resource.Get(key); ok {
			attributes = append(attributes, attribute.String(key, oneLine(value.AsString())))
			sender = append(sender, key+"="+value.AsString())
		}
	}
	if len(sender) == 0 {
		for key, value := range resource.All() {
			sender = append(sender, key+"="+value.AsString())
		}
		slices.Sort(sender)
	}
	who := oneLine(strings.Join(sender, " "))
	key := who + "\x00" + name + "\x00" + reason
	r.count(key, attribute.NewSet(attributes...), points, now)
	r.log(key, now, fmt.Sprintf("Refused: %s of %s: %s", oneLine(name), who, text), zap.String("reason", reason),
		zap.Int64("points", points))
}

func (r *refusals) count(key string, attributes attribute.Set, points int64, now time.Time) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	counted, ok := r.counts[key]
	if !ok {
		if len(r.counts) >= mostCounts {
			delete(r.counts, oldest(r.counts))
		}
		counted = &count{attributes: attributes}
		r.counts[key] = counted
	}
	counted.points += points
	counted.last = now
}

func oldest(counts map[string]*count) (key string) {
	for other, counted := range counts {
		if key == "" || counted.last.Before(counts[key].last) {
			key = other
		}
	}
	return key
}

// log writes a line, unless it was written within the hour. The message holds all that matters: the collector's log
// leaves out messages that are the same.
func (r *refusals) log(key string, now time.Time, message string, fields ...zap.Field) {
	if now.Sub(r.minute) > time.Minute {
		if r.hidden > 0 {
			r.logger.Warn("More points were refused than are named here; the metric counts all", zap.Int("hidden", r.hidden))
		}
		r.minute, r.lines, r.hidden = now, 0, 0
		for old, at := range r.logged {
			if now.Sub(at) > logAgain {
				delete(r.logged, old)
			}
		}
	}
	if _, ok := r.logged[key]; ok {
		return
	}
	if r.lines >= mostLines || len(r.logged) >= mostOffenders {
		r.hidden++
		return
	}
	r.lines++
	r.logged[key] = now
	r.logger.Warn(message, fields...)
}
