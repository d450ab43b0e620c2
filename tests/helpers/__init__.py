"""What tests share: command runners, inputs, networks, servers, and the seams they patch."""
