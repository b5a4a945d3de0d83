package isolatingexporter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
	protobuf     = "application/x-protobuf"
	longestText  = 500
	mostReadBack = 64 * 1024
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
	other       = "other"
)

// answer is the result of one request.
type answer struct {
	verdict verdict
	// text is the receiver's own, or the connection's failure.
	text   string
	reason string
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
	return judge(response, content)
}

// judge says what an answer means; what is neither about the data nor a success is waited for, for whatever reason it
// is: somebody must put it right, and meanwhile the queue keeps the data.
func judge(response *http.Response, content []byte) answer {
	code := response.StatusCode
	own := response.Header.Get("Content-Type") == protobuf
	if code >= 200 && code < 300 {
		result := pmetricotlp.NewExportResponse()
		if own && result.UnmarshalProto(content) == nil {
			success := result.PartialSuccess()
			return answer{text: oneLine(success.ErrorMessage()), rejected: success.RejectedDataPoints(), reason: partial}
		}
		return answer{}
	}
	text := string(content)
	if message := new(status.Status); own && proto.Unmarshal(content, message) == nil {
		text = message.GetMessage()
	}
	text = distinctLines(text)
	switch code {
	case http.StatusRequestEntityTooLarge:
		return answer{verdict: refused, text: text, reason: tooLarge}
	case http.StatusBadRequest, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusInternalServerError:
		reason := reasonOf(text)
		return answer{verdict: refused, text: text, reason: reason, unclear: code >= 500 && reason == other}
	}
	return answer{
		verdict:    wait,
		text:       fmt.Sprintf("HTTP %d: %s", code, text),
		unanswered: code == http.StatusBadGateway || code == http.StatusGatewayTimeout,
		delay:      retryAfter(response.Header.Get("Retry-After")),
	}
}

// reasonOf sorts Prometheus' texts (3.16, storage/interface.go and the OTLP translator); a receiver with other ones
// costs more requests, no more points.
func reasonOf(text string) string {
	for _, known := range []struct{ part, reason string }{
		{"too far in the future", tooFarAhead},
		{"too old sample", tooOld},
		{"out of bounds", tooOld},
		{"duplicate sample", duplicate},
		{"out of order sample", outOfOrder},
		{"invalid temporality", ofMetric},
		{"unsupported metric type", ofMetric},
		{"resulted in empty name", ofMetric},
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
