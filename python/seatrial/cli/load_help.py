"""What ``seatrial load --help`` says beside its options."""

from __future__ import annotations

from typing import Final

from seatrial.cli.load_options import option_names

DESCRIPTION: Final = """\
Offers load to a service and says what it answered: response times with intervals, offered beside
achieved, and whether the numbers may be believed.

With --rate the loop is open: requests are due by a schedule, whatever the replies do, and the
response time counts from the instant a request was due. A slow server cannot slow the load down,
and nothing is left out of the percentiles. Without --rate the loop is closed: each place on a
connection sends again as soon as its reply is there. That tells capacity, not what users feel.
"""

EPILOG: Final = f"""\
URLs (several: connections go to them in turn):
  http://HOST[:PORT]/PATH  https://...  http+unix:///SOCKET?path=/x
  grpc://HOST:PORT[/package.Service/Method]  grpcs://...  grpc+unix:///SOCKET
  redis://[[USER]:PASSWORD@]HOST[:6379][/DB]  rediss://...  redis+unix:///SOCKET
  memcached://HOST[:11211]  memcached+unix:///SOCKET
  rpc://HOST:PORT  rpc+unix:///SOCKET  rpc+udp://...  rpc+tls://...  (`seatrial serve rpc`)
  tcp://HOST:PORT  udp://...  tls://...  unix:///SOCKET  (bytes echoed as they came)
  fake://?service=LAW&workers=N[&stall_at=TIME&stall=TIME]  (a modelled server, no waiting)

TLS: a server that shows the certificate of an authority (CA:TRUE), which plain `openssl req -x509`
  makes, is refused even with --cacert. For one of its own add to that command
  -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:localhost,IP:127.0.0.1
  (docs/load.md has all of it).

redis and memcached WRITE by default: one request in ten sets one of `keys` keys, whatever it held
  before. To only read: --option read_ratio=1 (and no preload=true).

values:
  TIME  250ms, 10s, 5min (ns us ms s min h)    N/s   200/s, 2k/s, 90/min (k, M, G before the /)
  SIZE  64B, 4KiB, 1MB                         all with their unit: 2000 alone is refused
  LAW   of --think and --demand: constant:1ms, exponential:1ms, uniform:low=1ms,high=3ms,
        lognormal:mean=1ms,cv=2, gamma:mean=1ms,cv=2, bimodal:low=1ms,high=9ms,share=0.1

options of protocols (--option NAME=VALUE; `seatrial load --help-options` explains each):
{option_names()}

arrivals (--arrival), each with the mean that --rate gives:
  fixed, poisson, uniform, lognormal:cv=2, gamma:cv=2, weibull:shape=0.7, pareto:shape=0.4,
  gev:shape=0.1,scale=0.5, bimodal:ratio=10,share=0.1, mmpp:factor=5,burst=10ms,calm=100ms, fb_ia,
  trace:FILE (ns from the start, one a line; needs no --rate)
patterns (--pattern), the rate over time:
  fixed, step:from=1k/s,to=5k/s,by=1k/s,every=10s, ramp:from=..,to=..,over=..,
  spike:at=..,for=..,factor=.., square:low=..,high=..,period=..
  (step, ramp and square say the rates themselves, spike multiplies --rate; times count from the
  start of the load, its warm-up included)

examples:
  seatrial load http://127.0.0.1:8080/ --rate 2k/s --duration 30s
  seatrial load grpc://127.0.0.1:50051 --rate 500/s --ci p99=5% --slo 'p99<20ms' --strict
  seatrial load redis://127.0.0.1 --rate 10k/s -c 32 --option popularity=zipf:skew=0.99
  seatrial load http://127.0.0.1:8080/ --threads 2 -c 100 --duration 30s --rate 2k/s
                                      (what wrk2 -t2 -c100 -d30s -R2000 --latency does)
  seatrial load http://127.0.0.1:8080/ --rate 1k/s --out result     (and a page in result/)
  seatrial load rpc://127.0.0.1:7000 -c 64 --duration 5s              (closed loop: capacity)
  seatrial load http://127.0.0.1:8080/ --find-capacity --slo 'p99<10ms' --rate 100/s

reading the result:
  offered    what was due in the measured window; achieved: correct replies in it
  response   from the instant a request was due to its last byte: what a user would feel
  service    from sending to the last byte; the difference to response is waiting for a place
  pacing lag from "due, and a place is free" to sent: what this program itself was late
  [low, high] 95 % interval; n/a (need N): the sample is too small for that percentile
  ~value     of this sample, which is too small for an interval: N in (need N) values would do
verdicts: ok; request-failures (some got no correct reply), generator-bound (this program was too
  slow or disturbed), saturated (the service did not keep up: the latencies grow with the
  duration), not-stationary, not-independent (intervals are from blocks), not-converged (--ci was
  not reached)

objectives (--slo 'p99<5ms,failed<0.1%'): judged by the share of requests over the limit or failed,
  with its 95 % interval: holds if all of that is allowed (1 % for a p99), fails if none is, open
  between. What is open says how many requests, and which --duration, would decide.

exit codes: 0 ok; 1 no correct reply at all, an objective of --slo that does not hold or is open,
  or with --strict a verdict that is not ok;
  2 usage; 3 the service or something on this machine is not there; an agent of --agents was lost
  (nothing is kept: without its part it is another load); or a file could not be written (the
  result is printed and every other file written all the same);
  130 interrupted by Ctrl-C or SIGTERM: what was measured until then is printed and kept
"""
