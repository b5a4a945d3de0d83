package isolatingexporter

import (
	"context"
	"fmt"
	"maps"
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
	// mostCounts bounds the series of the counter. What was still for an hour goes; beyond, one series a reason has the
	// rest.
	mostCounts = 512
	others     = "others"
	// logAgain is how long the same refusal is not logged again, mostLogged how many of them are known, mostLines how
	// many lines a minute may have, and mostNames how many metrics a line.
	logAgain   = time.Hour
	mostLogged = 65536
	mostLines  = 60
	mostNames  = 100
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

// loss is what was given up of one sender, or at once of several, for one reason.
type loss struct {
	pieces       []piece
	reason, text string
}

// losses puts together what one line of the log can name.
type losses []*loss

func (l *losses) add(pieces []piece, reason, text string) {
	if ofOneOwner(pieces) {
		for _, known := range (*l)[max(0, len(*l)-mostLines):] {
			if ofOneOwner(known.pieces) && known.pieces[0].ownerRank == pieces[0].ownerRank &&
				known.reason == reason && known.text == text {
				known.pieces = append(known.pieces, pieces...)
				return
			}
		}
	}
	*l = append(*l, &loss{slices.Clone(pieces), reason, text})
}

func (l *losses) note(to *refusals) {
	for _, known := range *l {
		to.note(known.pieces, known.reason, known.text)
	}
}

// note counts and logs pieces that were refused together.
func (r *refusals) note(pieces []piece, reason, text string) {
	now := time.Now()
	for start := 0; start < len(pieces); {
		owner := pieces[start].ownerRank
		resource := pieces[start].resource.Resource().Attributes()
		who, attributes := r.sender(resource, reason)
		var names []string
		points := 0
		for start < len(pieces) && pieces[start].ownerRank == owner {
			stop := start
			for stop < len(pieces) && pieces[stop].kindRank == pieces[start].kindRank {
				stop++
			}
			name := oneLine(pieces[start].metric.Name())
			r.count(who, name, reason, attributes, int64(stop-start), now)
			names = append(names, name)
			points += stop - start
			start = stop
		}
		r.log(names, who, reason, text, points, now)
	}
}

// noteUnnamed counts points of which the receiver did not say whose they are.
func (r *refusals) noteUnnamed(points int64, text string) {
	who, attributes := r.sender(pcommon.NewMap(), partial)
	r.count(who, "", partial, attributes, points, time.Now())
	r.log([]string{"some points"}, who, partial, text, int(points), time.Now())
}

// sender returns the name of a resource for people, and the attributes of its series.
func (r *refusals) sender(resource pcommon.Map, reason string) (string, []attribute.KeyValue) {
	attributes, parts := r.attributes(resource, reason)
	if len(parts) == 0 {
		for key, value := range resource.All() {
			parts = append(parts, key+"="+value.AsString())
		}
		slices.Sort(parts)
	}
	return oneLine(strings.Join(parts, " ")), attributes
}

func (r *refusals) attributes(resource pcommon.Map, reason string) ([]attribute.KeyValue, []string) {
	attributes := []attribute.KeyValue{attribute.String("exporter", r.id), attribute.String("reason", reason)}
	var parts []string
	for _, key := range named {
		if value, ok := resource.Get(key); ok {
			attributes = append(attributes, attribute.String(key, oneLine(value.AsString())))
			parts = append(parts, key+"="+value.AsString())
		}
	}
	return attributes, parts
}

// count adds points to the series of a sender's metric, or to that of all others where there are too many.
func (r *refusals) count(who, name, reason string, sender []attribute.KeyValue, points int64, now time.Time) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	key := strings.Join([]string{who, name, reason}, "\x00")
	if _, ok := r.counts[key]; !ok && len(r.counts) >= mostCounts {
		maps.DeleteFunc(r.counts, func(_ string, counted *count) bool { return now.Sub(counted.last) > logAgain })
		if len(r.counts) >= mostCounts {
			key, name = reason, others
			sender, _ = r.attributes(pcommon.NewMap(), reason)
			sender = append(sender, attribute.String(named[0], others))
		}
	}
	counted, ok := r.counts[key]
	if !ok {
		counted = &count{attributes: attribute.NewSet(append(slices.Clip(sender), attribute.String("metric", name))...)}
		r.counts[key] = counted
	}
	counted.points += points
	counted.last = now
}

// log writes a line about a sender's metrics, without those that were named within the hour. The message holds all that
// matters: the collector's log leaves out messages that are the same.
func (r *refusals) log(names []string, who, reason, text string, points int, now time.Time) {
	if now.Sub(r.minute) > time.Minute {
		if r.hidden > 0 {
			r.logger.Warn(fmt.Sprintf("Refused, of %d more senders and metrics; the metric counts all", r.hidden))
		}
		r.minute, r.lines, r.hidden = now, 0, 0
		for old, at := range r.logged {
			if now.Sub(at) > logAgain {
				delete(r.logged, old)
			}
		}
	}
	var fresh []string
	for _, name := range names {
		key := strings.Join([]string{who, name, reason}, "\x00")
		if _, ok := r.logged[key]; ok {
			continue
		}
		if r.lines >= mostLines || len(r.logged) >= mostLogged {
			r.hidden++
			continue
		}
		r.logged[key] = now
		fresh = append(fresh, name)
	}
	if len(fresh) == 0 {
		return
	}
	r.lines++
	list := strings.Join(fresh[:min(len(fresh), mostNames)], ", ")
	if len(fresh) > mostNames {
		list += fmt.Sprintf(" and %d more", len(fresh)-mostNames)
	}
	r.logger.Warn(fmt.Sprintf("Refused, of %s: %s; metrics: %s", who, text, list), zap.String("reason", reason),
		zap.Int("points", points))
}
