package isolatingexporter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	protobuf    = "application/x-protobuf"
	longestText = 500
	// mostReadBack holds a line of Prometheus for each metric of a large batch.
	mostReadBack = 4 * 1024 * 1024
	// mostLinesOfText bounds how many different lines of an answer are kept.
	mostLinesOfText = 8
)

// verdict is what an answer means for the request.
type verdict int

const (
	taken verdict = iota
	// wait: the fault ends by itself or by configuration; the data are kept.
	wait
	// refused: the data may be at fault.
	refused
)

// Reasons of refusals: few, so that they can be an attribute.
const (
	tooFarAhead = "too_far_ahead"
	tooOld      = "too_old"
	duplicate   = "duplicate"
	outOfOrder  = "out_of_order"
	ofMetric    = "metric"
	tooLarge    = "too_large"
	noValue     = "no_value"
	repetition  = "repetition"
	partial     = "partial_success"
	undivided   = "undivided"
	other       = "other"
)

// anyName stands in a text for the name of one of several metrics.
const anyName = "{metric}"

// answer is the result of one request.
type answer struct {
	verdict verdict
	// text is the receiver's own, or the connection's failure.
	text   string
	reason string
	// whole is a refusal's text with all its lines.
	whole string
	// unclear says that the status may as well be about the receiver's own fault.
	unclear bool
	// unanswered says that the receiver may have taken the request.
	unanswered bool
	// rejected points of a request that was taken otherwise.
	rejected int64
	delay    time.Duration
}

// err returns the error after which the request is tried again.
func (a answer) err(prefix string) error {
	err := errors.New(prefix + a.text)
	if a.delay > 0 {
		return exporterhelper.NewThrottleRetry(err, a.delay)
	}
	return err
}

type client struct {
	config    *Config
	set       exporter.Settings
	url       string
	userAgent string
	http      *http.Client
}

func newClient(config *Config, set exporter.Settings) *client {
	return &client{
		config:    config,
		set:       set,
		url:       strings.TrimSuffix(config.ClientConfig.Endpoint, "/") + "/v1/metrics",
		userAgent: set.BuildInfo.Command + "/" + set.BuildInfo.Version,
	}
}

func (c *client) start(ctx context.Context, host component.Host) (err error) {
	c.http, err = c.config.ClientConfig.ToClient(ctx, host.GetExtensions(), c.set.TelemetrySettings)
	if err == nil {
		// A page to log in on would "take" everything.
		c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	return err
}

// send makes one request.
func (c *client) send(ctx context.Context, metrics pmetric.Metrics) answer {
	body, err := pmetricotlp.NewExportRequestFromMetrics(metrics).MarshalProto()
	if err != nil {
		return answer{verdict: refused, text: err.Error(), reason: other}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return answer{verdict: wait, text: err.Error()}
	}
	request.Header.Set("Content-Type", protobuf)
	request.Header.Set("User-Agent", c.userAgent)
	response, err := c.http.Do(request)
	if err != nil {
		return answer{verdict: wait, text: err.Error(), unanswered: true}
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, mostReadBack))
	if err != nil && response.StatusCode >= 300 {
		return answer{verdict: wait, text: err.Error(), unanswered: true}
	}
	reply := judge(response, content)
	if longest := c.config.RetryConfig.MaxInterval; longest > 0 {
		// A receiver with a wrong clock or a long Retry-After would stop everybody.
		reply.delay = min(reply.delay, longest)
	}
	return reply
}

// judge says what an answer means; what is neither about the data nor a success is waited for, for whatever reason it
// is: somebody must put it right, and meanwhile the queue keeps the data.
func judge(response *http.Response, content []byte) answer {
	code := response.StatusCode
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	own := kind == protobuf
	if code >= 200 && code < 300 {
		result := pmetricotlp.NewExportResponse()
		switch {
		case own && result.UnmarshalProto(content) == nil, ofJSON(kind, content) && result.UnmarshalJSON(content) == nil:
			success := result.PartialSuccess()
			return answer{text: oneLine(success.ErrorMessage()), rejected: success.RejectedDataPoints(), reason: partial}
		case !own && len(bytes.TrimSpace(content)) > 0:
			content = content[:min(len(content), longestText)]
			text := fmt.Sprintf("HTTP %d is no answer to OTLP, but %s: %s", code, kind, content)
			return answer{verdict: wait, text: oneLine(text)}
		}
		return answer{}
	}
	text := string(content)
	if message := new(status.Status); own && proto.Unmarshal(content, message) == nil {
		text = message.GetMessage()
	}
	whole := text
	text = distinctLines(text)
	switch code {
	case http.StatusRequestEntityTooLarge:
		return answer{verdict: refused, text: text, reason: tooLarge}
	case http.StatusBadRequest, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusInternalServerError:
		reason := reasonOf(whole)
		return answer{verdict: refused, text: text, whole: whole, reason: reason, unclear: code >= 500 && reason == other}
	}
	return answer{
		verdict:    wait,
		text:       fmt.Sprintf("HTTP %d: %s", code, text),
		unanswered: code == http.StatusBadGateway || code == http.StatusGatewayTimeout,
		delay:      retryAfter(response.Header.Get("Retry-After")),
	}
}

// ofJSON tells whether content is an answer to OTLP in JSON, which some receivers give to each request.
func ofJSON(kind string, content []byte) bool {
	content = bytes.TrimSpace(content)
	return kind == "application/json" && (string(content) == "{}" || bytes.Contains(content, []byte(`"partialSuccess"`)))
}

// reasonOf sorts Prometheus' texts (3.16, storage/interface.go and the OTLP translator); a receiver with other ones
// costs more requests, no more points. Of several reasons that which is decided with the fewest requests is first.
func reasonOf(text string) string {
	for _, known := range []struct{ part, reason string }{
		{"invalid temporality", ofMetric},
		{"unsupported metric type", ofMetric},
		{"resulted in empty name", ofMetric},
		{"too far in the future", tooFarAhead},
		{"too old sample", tooOld},
		{"out of bounds", tooOld},
		{"duplicate sample", duplicate},
		{"out of order sample", outOfOrder},
	} {
		if strings.Contains(text, known.part) {
			return known.reason
		}
	}
	return other
}

func retryAfter(value string) time.Duration {
	if seconds, err := strconv.Atoi(value); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return time.Until(date)
	}
	return 0
}

// distinctLines returns text without repetitions: Prometheus has a line for each bad point.
func distinctLines(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = oneLine(line); line != "" && !slices.Contains(lines, line) && len(lines) < mostLinesOfText {
			lines = append(lines, line)
		}
	}
	return oneLine(strings.Join(lines, "; "))
}

// oneLine returns text of others as a log, a terminal and a label take it.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	text = strings.Map(func(letter rune) rune {
		if unicode.IsPrint(letter) {
			return letter
		}
		return '?'
	}, text)
	if len(text) > longestText {
		text = strings.ToValidUTF8(text[:longestText], "") + "…"
	}
	return text
}
