package isolatingexporter

import "time"

const (
	// remembered is how long an offender is sent apart after its last refusal.
	remembered = 10 * time.Minute
	// mostOffenders bounds their number; beyond, one is searched for again each time.
	mostOffenders = 4096
)

// offender is a metric of a resource, or a resource as a whole where kind is empty.
type offender struct{ owner, kind string }

// offenders holds until when each is sent apart.
type offenders map[offender]time.Time

func (o offenders) forget(now time.Time) {
	for key, until := range o {
		if now.After(until) {
			delete(o, key)
		}
	}
}

// remember notes who was refused. A resource of which several metrics were refused together counts as a whole.
func (o offenders) remember(pieces []piece, now time.Time) {
	for len(pieces) > 0 {
		stop := 1
		for stop < len(pieces) && pieces[stop].ownerRank == pieces[0].ownerRank {
			stop++
		}
		key := offender{owner: pieces[0].owner}
		if ofOneMetric(pieces[:stop]) {
			key.kind = pieces[0].kind
		}
		if _, ok := o[key]; ok || len(o) < mostOffenders {
			o[key] = now.Add(remembered)
		}
		pieces = pieces[stop:]
	}
}

// part returns pieces of which nothing is known, and those of offenders.
func (o offenders) part(pieces []piece) (good, suspect []piece) {
	for _, part := range pieces {
		_, whole := o[offender{owner: part.owner}]
		_, single := o[offender{part.owner, part.kind}]
		if whole || single {
			suspect = append(suspect, part)
		} else {
			good = append(good, part)
		}
	}
	return good, suspect
}
