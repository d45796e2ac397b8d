vcl 4.1;

# What `--cdn varnish` needs of a site's VCL: PURGE for a path, BAN for a wildcard, both only from the workers' addresses.
# See docs/CDN.md.

# The origin.
backend default {
    .host = "127.0.0.1";
    .port = "8080";
}

# The addresses of the workers.
acl purgers {
    "127.0.0.1";
}

sub vcl_recv {
    if (req.method == "PURGE" || req.method == "BAN") {
        if (client.ip !~ purgers) {
            return (synth(405, "Not allowed"));
        }
        if (req.method == "PURGE") {
            return (purge);
        }
        if (!req.http.X-Ban-Regex) {
            return (synth(400, "X-Ban-Regex is missing"));
        }
        ban("obj.http.X-Ban-Host == " + req.http.host + " && obj.http.X-Ban-Url ~ " + req.http.X-Ban-Regex);
        return (synth(200, "Banned"));
    }
}

sub vcl_backend_response {
    # For bans, which look at what is stored and not at requests.
    set beresp.http.X-Ban-Host = bereq.http.host;
    set beresp.http.X-Ban-Url = bereq.url;
}

sub vcl_deliver {
    unset resp.http.X-Ban-Host;
    unset resp.http.X-Ban-Url;
}
