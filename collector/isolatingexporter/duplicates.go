package isolatingexporter

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"
)

// ofDuplicate is Prometheus' text about a second value, a line for each refused metric in the order of the request.
var ofDuplicate = regexp.MustCompile(`^duplicate sample for timestamp (\d+); .* new value (\S+)$`)

// sample is a time in milliseconds and a value, as Prometheus writes them.
type sample struct{ milliseconds, value string }

// byText takes a group apart by the times and values that the answer names. Where it has a line for each piece all are
// refused; else metrics with points that it names are sent after the others.
func (s *search) byText(of group) (left []group) {
	lines := strings.Split(strings.TrimSpace(of.answer.whole), "\n")
	named, times := map[sample]bool{}, map[string]bool{}
	only := len(lines) == len(of.pieces)
	for index, line := range lines {
		match := ofDuplicate.FindStringSubmatch(line)
		if match == nil {
			only = false
			continue
		}
		named[sample{match[1], match[2]}], times[match[1]] = true, true
		only = only && (index == 0 || of.pieces[index].kindRank != of.pieces[index-1].kindRank)
	}
	if only {
		s.bad = append(s.bad, withLines(of, lines)...)
		return []group{}
	}
	isNamed := func(part piece) bool {
		at := strconv.FormatInt(part.time/int64(time.Millisecond), 10)
		value, single := valueOf(part)
		return named[sample{at, value}] || (!single && times[at])
	}
	kinds := map[int]bool{}
	for _, part := range of.pieces {
		kinds[part.kindRank] = kinds[part.kindRank] || isNamed(part)
	}
	suspect, others := divide(of.pieces, func(part piece) bool { return kinds[part.kindRank] })
	if len(suspect) == 0 {
		return nil
	}
	if len(others) > 0 {
		return append([]group{{pieces: others}}, likelyBad(suspect, of.known)...)
	}
	// A second value that comes after a later point of its series would be taken in the out-of-order window.
	duplicates, later := divide(of.pieces, isNamed)
	if len(later) == 0 {
		return nil
	}
	return []group{{pieces: duplicates, inOrder: true}, {pieces: later, inOrder: true}}
}

// divide returns the pieces for which something holds, and the others.
func divide(pieces []piece, holds func(piece) bool) (those, others []piece) {
	for _, part := range pieces {
		if holds(part) {
			those = append(those, part)
		} else {
			others = append(others, part)
		}
	}
	return those, others
}

// withLines returns a group for each resource, with the lines about its own pieces.
func withLines(of group, lines []string) (groups []group) {
	for start := 0; start < len(of.pieces); {
		stop := start
		for stop < len(of.pieces) && of.pieces[stop].ownerRank == of.pieces[start].ownerRank {
			stop++
		}
		reply := *of.answer
		reply.text = distinctLines(strings.Join(lines[start:stop], "\n"))
		groups = append(groups, group{pieces: of.pieces[start:stop], answer: &reply})
		start = stop
	}
	return groups
}

// valueOf returns a point's value, and whether it has a single one.
func valueOf(part piece) (string, bool) {
	var points pmetric.NumberDataPointSlice
	switch {
	case part.index >= 0 && part.metric.Type() == pmetric.MetricTypeGauge:
		points = part.metric.Gauge().DataPoints()
	case part.index >= 0 && part.metric.Type() == pmetric.MetricTypeSum:
		points = part.metric.Sum().DataPoints()
	default:
		return "", false
	}
	point := points.At(part.index)
	if point.ValueType() == pmetric.NumberDataPointValueTypeInt {
		return fmt.Sprintf("%g", float64(point.IntValue())), true
	}
	return fmt.Sprintf("%g", point.DoubleValue()), true
}
