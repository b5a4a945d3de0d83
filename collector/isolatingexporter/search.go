package isolatingexporter

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

const (
	// mostOfKnown is how many requests of known offenders may be refused in one batch, and mostRefusals how many that
	// hold one resource only. Beyond, what is refused together is given up undivided. Resources of which nothing is known
	// are always told apart.
	mostOfKnown  = 128
	mostRefusals = 1024
	// manyPieces is how many that are likely refused are sent together: a refusal costs Prometheus the square of its lines.
	manyPieces = 1024
	// mostMetrics is how many metrics a request has. For the same reason: a refusal that takes longer than the client waits
	// would be asked for again for ever, and hold everybody up.
	mostMetrics = 8192
	// fewPieces are taken apart one by one.
	fewPieces = 4
	// alwaysTaken is the age, before the newest sample of all, up to which Prometheus takes what is new in its own series
	// (half of its min-block-duration), however short its out-of-order window. Beyond it age alone decides.
	alwaysTaken = time.Hour
)

// group is a part of a batch that is sent together.
type group struct {
	pieces []piece
	// answer to it, where it was sent as a whole already.
	answer *answer
	// known says that all are of offenders, ofClasses that all are of classes that were refused.
	known, ofClasses bool
	// inOrder says that a later group has points of the same series.
	inOrder bool
	// undivided says that some may be good.
	undivided bool
}

// search takes one batch apart.
type search struct {
	*isolating
	groups, bad []group
	// classes that were refused, with the answer to one point of each, and their pieces.
	classes   map[string]answer
	ofClasses []piece
	// newest is the time of the newest point that was taken, 0 if there is none; now, that one was sent to learn it.
	newest time.Duration
	asked  bool
	// refusals of one resource, and those of known offenders.
	refusals, ofKnown int
}

// run sends the groups, ever smaller parts of those that are refused, and gives up what is refused alone. Parts of several
// resources come first, so that nobody waits for what is wrong with others; the points of a series keep their order.
func (s *search) run(ctx context.Context) error {
	for len(s.groups) > 0 {
		next := s.groups[0]
		s.groups = s.groups[1:]
		failure := s.leaveOut(ctx, &next, next.ofClasses)
		if failure == nil && len(next.pieces) > 0 {
			failure = s.send(ctx, next)
		}
		if failure != nil {
			rest := append(append(s.bad, group{pieces: s.ofClasses}, next), s.groups...)
			return s.wait(*failure, "", rest)
		}
	}
	return s.giveUp(ctx, append(s.bad, s.byOwner()...), pcommon.Timestamp(s.newest))
}

// leaveOut takes the pieces of refused classes out of a group. With ask, a point of each class that may be at fault is
// sent alone, once a batch: it stands for all.
func (s *search) leaveOut(ctx context.Context, of *group, ask bool) *answer {
	tried := map[string]bool{}
	for _, part := range of.pieces {
		class := classOf(part.metric)
		if _, ok := s.classes[class]; !ask || ok || class == "" || tried[class] {
			continue
		}
		tried[class] = true
		reply := s.client.send(ctx, assemble([]piece{part}))
		switch {
		case reply.verdict == wait:
			return &reply
		case reply.verdict == refused && reply.reason == ofMetric:
			reply.text = strings.ReplaceAll(reply.text, strconv.Quote(part.metric.Name()), anyName)
			s.classes[class] = reply
			s.offenders[offender{kind: class}] = record{until: time.Now().Add(remembered)}
		default:
			delete(s.offenders, offender{kind: class})
		}
	}
	if len(s.classes) == 0 {
		return nil
	}
	lost, kept := divide(of.pieces, func(part piece) bool {
		_, ok := s.classes[classOf(part.metric)]
		return ok
	})
	if len(lost) > 0 {
		s.ofClasses = append(s.ofClasses, lost...)
		of.pieces, of.answer = kept, nil
	}
	return nil
}

// send makes the request of a group and sorts its pieces by the answer.
func (s *search) send(ctx context.Context, next group) *answer {
	if next.answer == nil {
		reply := s.client.send(ctx, assemble(next.pieces))
		next.answer = &reply
	}
	switch next.answer.verdict {
	case taken:
		s.took(*next.answer)
		if next.known {
			s.offenders.clear(next.pieces)
		}
		for _, part := range next.pieces {
			s.newest = max(s.newest, time.Duration(part.time))
		}
		return nil
	case wait:
		return next.answer
	}
	alike, left, failure := s.alike(ctx, next)
	switch {
	case failure != nil:
		return failure
	case alike:
		s.bad = append(s.bad, next)
		return nil
	case len(left) > 1 && s.spent(next):
		next.undivided = true
		s.bad = append(s.bad, next)
		return nil
	}
	for index := range left {
		left[index].known = next.known
		left[index].inOrder = left[index].inOrder || next.inOrder || ofOneMetric(next.pieces)
	}
	if (len(left) > 0 && left[0].inOrder) || !(next.known || ofOneOwner(next.pieces)) {
		s.groups = append(left, s.groups...)
	} else {
		s.groups = append(s.groups, left...)
	}
	return nil
}

// spent tells whether a refused group may not be divided any more.
func (s *search) spent(of group) bool {
	switch {
	case of.known:
		s.ofKnown++
		return s.ofKnown > mostOfKnown
	case ofOneOwner(of.pieces):
		s.refusals++
		return s.refusals > mostRefusals
	}
	return false
}

// alike tells whether each point of a refused group would be refused alone, and else returns what is left to send of
// it. Where time or a metric's class is at fault one point is asked for, as the receiver's limits hold for all senders;
// where a second value is, its text tells.
func (s *search) alike(ctx context.Context, of group) (bool, []group, *answer) {
	if len(of.pieces) == 1 || (ofOneMetric(of.pieces) && of.answer.reason == ofMetric) {
		return true, nil, nil
	}
	switch reason := of.answer.reason; {
	case reason == ofMetric:
		rest := of
		if failure := s.leaveOut(ctx, &rest, true); failure != nil || rest.answer == nil {
			return false, []group{rest}, failure
		}
	case len(of.pieces) > fewPieces && (reason == tooFarAhead || reason == tooOld):
		if alike, left, failure := s.byTime(ctx, of); alike || left != nil || failure != nil {
			return alike, left, failure
		}
	case reason == duplicate:
		if left := s.byText(of); left != nil {
			return false, left, nil
		}
	}
	left, right := cut(of.pieces)
	return false, []group{{pieces: left}, {pieces: right}}, nil
}

// byTime does the same where time is at fault: it asks for the point that has the best chance, and cuts between times.
func (s *search) byTime(ctx context.Context, of group) (bool, []group, *answer) {
	late := of.answer.reason == tooFarAhead
	times := make([]int64, 0, len(of.pieces))
	for _, part := range of.pieces {
		times = append(times, part.time)
	}
	slices.Sort(times)
	bound, best := times[len(times)/2], times[0]
	ask := true
	if !late {
		// Beyond that age no series is treated better than others. Younger points are not asked for, as older ones of the same
		// series may have to come first.
		best = times[len(times)-1]
		alone := s.decidesAlone(ctx, best)
		bound, ask = min(bound, alone+1), best <= alone
	}
	if ask {
		index := slices.IndexFunc(of.pieces, func(part piece) bool { return part.time == best })
		reply := s.client.send(ctx, assemble(of.pieces[index:index+1]))
		switch {
		case reply.verdict == wait:
			return false, nil, &reply
		case reply.verdict == refused && reply.reason == of.answer.reason:
			*of.answer = reply // the text about one point
			return true, nil, nil
		}
		// It may be sent again with its part: the same value at the same time is taken.
	}
	before, since := divide(of.pieces, func(part piece) bool { return part.time < bound })
	if len(before) == 0 || len(since) == 0 {
		return false, nil, nil
	}
	return false, []group{{pieces: before, inOrder: true}, {pieces: since, inOrder: true}}, nil
}

// decidesAlone returns the time up to which age decides alone, whatever the series. If it is before a point's, a point of
// this moment is sent, once a batch, to learn how new the receiver's newest is at least.
func (s *search) decidesAlone(ctx context.Context, at int64) int64 {
	if at > int64(s.newest-alwaysTaken) && !s.asked {
		s.asked = true
		if now := time.Now(); s.client.send(ctx, probe(pcommon.NewTimestampFromTime(now))).verdict == taken {
			s.newest = max(s.newest, time.Duration(now.UnixNano()))
		}
	}
	return int64(s.newest - alwaysTaken)
}

// likelyBad returns groups of pieces that are likely refused.
func likelyBad(pieces []piece, known bool) []group {
	if len(pieces) <= manyPieces {
		return []group{{pieces: pieces, known: known}}
	}
	left, right := cut(pieces)
	return append(likelyBad(left, known), likelyBad(right, known)...)
}

// portions returns groups of pieces of mostMetrics metrics at most.
func portions(pieces []piece) []group {
	metrics := 0
	for index, part := range pieces {
		if index == 0 || part.kindRank != pieces[index-1].kindRank {
			metrics++
		}
	}
	if metrics <= mostMetrics {
		return []group{{pieces: pieces}}
	}
	left, right := cut(pieces)
	return append(portions(left), portions(right)...)
}

// byOwner returns a group for each resource and class of those that were refused, with the text as of its own metric.
func (s *search) byOwner() (groups []group) {
	slices.SortStableFunc(s.ofClasses, func(a, b piece) int {
		return cmp.Or(cmp.Compare(a.ownerRank, b.ownerRank), cmp.Compare(classOf(a.metric), classOf(b.metric)))
	})
	for start := 0; start < len(s.ofClasses); {
		first := s.ofClasses[start]
		class, stop := classOf(first.metric), start
		for stop < len(s.ofClasses) && s.ofClasses[stop].ownerRank == first.ownerRank && classOf(s.ofClasses[stop].metric) == class {
			stop++
		}
		reply := s.classes[class]
		reply.text = strings.ReplaceAll(reply.text, anyName, strconv.Quote(oneLine(first.metric.Name())))
		groups = append(groups, group{pieces: s.ofClasses[start:stop], answer: &reply, ofClasses: true})
		start = stop
	}
	return groups
}
