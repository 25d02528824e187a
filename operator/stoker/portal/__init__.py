"""The portal: pages where people see their models and make, rotate and revoke their own keys."""
