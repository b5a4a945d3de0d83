// Package retryableauth lets a collector refuse wrong credentials in a way that senders keep their data.
//
// OTLP counts UNAUTHENTICATED among the answers after which a sender must not try again: an agent whose token has
// expired throws away what it has, and all that comes until somebody notices. This extension asks another
// authenticator, which decides alone, and answers UNAVAILABLE where that one refuses: nobody gets in, and the
// sender's queue keeps the data until its credentials are fixed.
package retryableauth

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/extensionauth"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Config says who decides.
type Config struct {
	// Authenticator is the extension that judges credentials.
	Authenticator component.ID `mapstructure:"authenticator"`
}

// Validate refuses a configuration without an authenticator.
func (c *Config) Validate() error {
	if c.Authenticator == (component.ID{}) {
		return errors.New("authenticator must name the extension that judges credentials, such as bearertokenauth")
	}
	return nil
}

// NewFactory returns the factory of the extension retryable_auth.
func NewFactory() extension.Factory {
	return extension.NewFactory(
		component.MustNewType("retryable_auth"),
		func() component.Config { return &Config{} },
		func(_ context.Context, _ extension.Settings, config component.Config) (extension.Extension, error) {
			return &retryable{authenticator: config.(*Config).Authenticator}, nil
		},
		component.StabilityLevelBeta,
	)
}

type retryable struct {
	component.ShutdownFunc
	authenticator component.ID
	judge         extensionauth.Server
}

var _ extensionauth.Server = (*retryable)(nil)

// Start finds the authenticator.
func (r *retryable) Start(_ context.Context, host component.Host) error {
	found, ok := host.GetExtensions()[r.authenticator]
	if !ok {
		return fmt.Errorf("authenticator %q is not among the service's extensions", r.authenticator)
	}
	if r.judge, ok = found.(extensionauth.Server); !ok {
		return fmt.Errorf("extension %q does not authenticate requests to a server", r.authenticator)
	}
	return nil
}

// Authenticate returns what the authenticator does, its refusal as a status that senders try again after.
func (r *retryable) Authenticate(ctx context.Context, sources map[string][]string) (context.Context, error) {
	ctx, err := r.judge.Authenticate(ctx, sources)
	if err != nil {
		return ctx, status.Error(codes.Unavailable, "refused, keep your data: "+err.Error())
	}
	return ctx, nil
}
